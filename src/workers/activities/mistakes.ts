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

/** Nobody's mistake, and gone after a while or on another worker: tried for as long as it takes. */
const infrastructure: ReadonlySet<string> = new Set([
  ...fatal,
  "AdapterError",
  "NatsUnavailableError",
  "PromptStoreUnavailableError",
  "SchedulerClosedError",
  "ServiceError", // Temporal's own client
  "StoreError",
]);

/** The same for every item and every worker, until somebody changes a setting. */
const callerMistakes: ReadonlySet<string> = new Set([
  "ImageIndexError",
  "ManifestError",
  "NatsConfigError",
  "PathError",
  "PromptStoreError",
  "StageError",
  "UnsupportedModelError",
]);

/** What an item's own image, text or path can be wrong in. Any other class is no item's fault. */
const itemMistakes: ReadonlySet<string> = new Set([
  "GenerationError",
  "ImageError",
  "PathError",
  "QuestionError",
  "RankError",
  "TextError",
  "TokenizerError",
]);

/** A file system's codes have no underscore, Node's own have one. */
const systemCode = /^E[A-Z0-9]+$/;

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

/**
 * Tries of an activity after which a passing fault of one item's file is that item's failure, and a fault that nobody
 * foresaw (a kernel that fails, a bug) is the job's: it would stand there for ever otherwise.
 */
const patience = 5;

/**
 * What to write down for an item whose work threw; rethrows what is no fault of the item.
 * @param attempt of the activity, from 1
 */
export function itemError(error: unknown, attempt: number): ItemError {
  if (error instanceof TemporalFailure) throw error;
  if (!(error instanceof Error)) throw error;
  const isOfFile = systemCode.test(errorCode(error) ?? "") && !infrastructure.has(error.name);
  if (!itemMistakes.has(error.name) && !isOfFile) throw error;
  if (passingCodes.has(errorCode(error) ?? "") && attempt < patience) throw error;
  return { type: error.name, message: error.message };
}

/**
 * The error as Temporal should see it: the class as its type. A caller's mistake is not retried, infrastructure always,
 * what nobody foresaw a few times.
 * @param attempt of the activity, from 1
 */
export function toFailure(error: unknown, attempt = 1): Error {
  if (error instanceof TemporalFailure) return error;
  const name = error instanceof Error ? error.name : "Error";
  const message = error instanceof Error ? error.message : String(error);
  if (name === "AbortError") return new CancelledFailure(message);
  const isForeseen = infrastructure.has(name) || passingCodes.has(errorCode(error) ?? "");
  return ApplicationFailure.create({
    type: name,
    message,
    nonRetryable: callerMistakes.has(name) || (!isForeseen && attempt >= patience),
    ...(error instanceof Error ? { cause: error } : {}),
  });
}
