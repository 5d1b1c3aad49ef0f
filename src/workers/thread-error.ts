// Errors cross threads as records and come out with their class name, message and stack.

import { AdapterError, DeviceLostError, KernelError, OutOfMemoryError, ShapeError } from "../gpu/errors.ts";
import { SchedulerClosedError } from "../gpu/scheduler.ts";

/** The GPU thread crashed, ended without saying why, or was used after its end. */
export class GpuThreadError extends Error {
  override name = "GpuThreadError";
}

export interface ErrorRecord {
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
}

const classes = {
  AdapterError,
  DeviceLostError,
  GpuThreadError,
  KernelError,
  OutOfMemoryError,
  ShapeError,
  SchedulerClosedError,
};

export function toRecord(error: unknown): ErrorRecord {
  if (!(error instanceof Error)) return { name: "Error", message: String(error), stack: undefined };
  return { name: error.name, message: error.message, stack: error.stack };
}

/** An error of the class that was thrown where this side knows it, else an Error of the same name. */
export function fromRecord({ name, message, stack }: ErrorRecord): Error {
  const known = Object.entries(classes).find(([className]) => className === name)?.[1];
  const error = known ? new known(message) : Object.assign(new Error(message), { name });
  if (stack !== undefined) error.stack = stack;
  return error;
}
