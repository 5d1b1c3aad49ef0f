// Why a job cannot be submitted, found or steered.

import type { ItemError } from "../messages/job.ts";

/** A job that cannot be had: unknown, there already, still running, with nothing to retry, or failed as a whole. */
export class JobError extends Error {
  override readonly name = "JobError";
}

/** A job that could not be planned, under its mistake's class: nothing was run, and the job's id is free. */
export class JobRefusedError extends Error {
  constructor({ type, message }: ItemError) {
    super(message);
    this.name = type;
  }
}

/** Nobody serves the queue `jobs`, so nobody can say how the job stands. */
export class NoWorkerError extends Error {
  override readonly name = "NoWorkerError";
}
