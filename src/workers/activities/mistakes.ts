// Whose fault an error is decides what happens: an item's becomes data, a caller's ends the job, a machine's is retried.

import { ApplicationFailure, CancelledFailure, TemporalFailure } from "@temporalio/common";
import { errorCode } from "../../jobs/errors.ts";
import type { ItemError } from "../../messages/job.ts";

/** A question was asked for, and neither the item nor the job has one. */
export class QuestionError extends Error {
  override readonly name = "QuestionError";
}

/** The GPU is of no more use to this process; it ends, and its work goes to another. */
const fatal: ReadonlySet<string> = new Set(["DeviceLostError", "OutOfMemoryError", "GpuThreadError"]);

/** Nobody's mistake, and gone after a while or on another worker. */
const infrastructure: ReadonlySet<string> = new Set([
  ...fatal,
  "AdapterError",
  "NatsUnavailableError",
  "PromptStoreUnavailableError",
  "SchedulerClosedError",
  "StoreError",
]);

/** The same for every item and every worker, until somebody changes a setting. */
const callerMistakes: ReadonlySet<string> = new Set([
  "ManifestError",
  "NatsConfigError",
  "PathError",
  "PromptStoreError",
  "StageError",
]);

/** Codes of a file system that may work again: a mount that went away, too many open files. */
const passingCodes: ReadonlySet<string> = new Set([
  "EIO",
  "EMFILE",
  "ENFILE",
  "ESTALE",
  "ETIMEDOUT",
  "EAGAIN",
  "EBUSY",
]);

/** Tries of an activity after which even a passing fault of one item is that item's failure. */
const patience = 5;

export function isFatal(error: unknown): boolean {
  return error instanceof Error && fatal.has(error.name);
}

/**
 * What to write down for an item whose work threw; rethrows what is no fault of the item.
 * @param attempt of the activity, from 1
 */
export function itemError(error: unknown, attempt: number): ItemError {
  if (error instanceof TemporalFailure) throw error;
  const name = error instanceof Error ? error.name : "Error";
  if (name === "AbortError" || infrastructure.has(name) || name === "PromptStoreError" || name === "StageError")
    throw error;
  if (passingCodes.has(errorCode(error) ?? "") && attempt < patience) throw error;
  return { type: name, message: error instanceof Error ? error.message : String(error) };
}

/** The error as Temporal should see it: the class as its type, retried unless it is a caller's mistake. */
export function toFailure(error: unknown): Error {
  if (error instanceof TemporalFailure) return error;
  if (!(error instanceof Error)) return ApplicationFailure.retryable(String(error), "Error");
  if (error.name === "AbortError") return new CancelledFailure(error.message);
  return ApplicationFailure.create({
    type: error.name,
    message: error.message,
    nonRetryable: callerMistakes.has(error.name),
    cause: error,
  });
}
