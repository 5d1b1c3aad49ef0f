// Names of Temporal workflows, signals, queries and task queues. Pure: workflows import it.

import type { ModelIdentity, Stage } from "./job.ts";

/** Queue of workflows and of the activities that need no model: plan, fold, ask. */
export const jobsQueue = "jobs";

/**
 * The queue of one stage of one model: `<stage>.<first 12 of the digest>.<dtype>`; interactive work has its own, with
 * `.now`, so that no batch can stand before it.
 */
export function stageQueue(
  stage: Stage,
  model: Pick<ModelIdentity, "digest" | "dtype">,
  work: "batch" | "now" = "batch",
): string {
  return `${stage}.${model.digest.slice(0, 12)}.${model.dtype}${work === "now" ? ".now" : ""}`;
}

/** Workflow id of a job; every attempt of it (retry) is another run under the same id. */
export function jobWorkflowId(jobId: string): string {
  return `blipfleet-job-${jobId}`;
}

/** Workflow id of one chunk of one attempt. */
export function chunkWorkflowId(jobWorkflow: string, attempt: number, chunk: number): string {
  return `${jobWorkflow}/${attempt}/chunk-${String(chunk).padStart(5, "0")}`;
}
