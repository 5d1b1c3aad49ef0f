// Names of Temporal workflows, signals, queries and task queues. Pure: workflows import it.

import type { RunSettings } from "../stages.ts";
import type { ModelIdentity, Stage } from "./job.ts";

/** Queue of workflows and of the activities that need no model: plan, fold, ask. */
export const jobsQueue = "jobs";

/**
 * The queue of one stage of one model: `<stage>.<first 12 of the digest>.<dtype>`, and `.<settings>` where the model is run
 * otherwise than the checkpoint says; interactive work has its own, with `.now`, so that no batch can stand before it.
 */
export function stageQueue(stage: Stage, model: ServedModel, work: "batch" | "now" = "batch"): string {
  const settings = settingsName(model.settings);
  const served = [stage, model.digest.slice(0, 12), model.dtype, ...(settings === "" ? [] : [settings])];
  return [...served, ...(work === "now" ? ["now"] : [])].join(".");
}

/** What decides which workers can do a model's work. */
export type ServedModel = Pick<ModelIdentity, "digest" | "dtype" | "settings">;

/** Whether work for one is work for the other. */
export function isSameModel(a: ServedModel, b: ServedModel): boolean {
  return a.digest === b.digest && a.dtype === b.dtype && settingsName(a.settings) === settingsName(b.settings);
}

/** Settings as a word, e.g. "480px" or "480px-lavis"; "" where all is as the checkpoint has it. */
export function settingsName({ imageSize, behaviour = "huggingface" }: RunSettings = {}): string {
  return [imageSize === undefined ? "" : `${imageSize}px`, behaviour === "huggingface" ? "" : behaviour]
    .filter(Boolean)
    .join("-");
}

/** Workflow id of a job; every attempt of it (retry) is another run under the same id. */
export function jobWorkflowId(jobId: string): string {
  return `blipfleet-job-${jobId}`;
}

/** Workflow id of one chunk of one attempt. */
export function chunkWorkflowId(jobWorkflow: string, attempt: number, chunk: number): string {
  return `${jobWorkflow}/${attempt}/chunk-${String(chunk).padStart(5, "0")}`;
}
