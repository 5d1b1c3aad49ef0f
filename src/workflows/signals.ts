// Signals and queries of the workflow `job`, for workflows and their callers.

import { defineQuery, defineSignal } from "@temporalio/workflow";
import type { ChunkReport, JobProgress } from "../messages/job.ts";

/** Start no more chunks; those in flight end. */
export const pauseSignal = defineSignal("pause");
export const resumeSignal = defineSignal("resume");
/** Cancel every chunk in flight and end with what is committed. */
export const cancelSignal = defineSignal("cancel");
/** From a chunk to its job. A report about a chunk that is not in flight changes nothing. */
export const chunkFinishedSignal = defineSignal<[ChunkReport]>("chunkFinished");
export const progressQuery = defineQuery<JobProgress>("progress");
