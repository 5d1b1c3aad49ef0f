// The mistake behind a failure, as plain data.

import { ApplicationFailure, TemporalFailure } from "@temporalio/workflow";
import type { ItemError } from "../messages/job.ts";

/** Class and sentence of the innermost mistake that has a name: activities throw it, Temporal wraps it. */
export function problemOf(error: unknown): ItemError {
  if (error instanceof ApplicationFailure) return { type: error.type ?? "Error", message: error.message };
  if (error instanceof TemporalFailure && error.cause !== undefined) return problemOf(error.cause);
  if (error instanceof Error) return { type: error.name, message: error.message };
  return { type: "Error", message: String(error) };
}
