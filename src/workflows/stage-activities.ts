// The activities as workflows see them: on which queue, how long, how often.

import type { Priority } from "@temporalio/common";
import { ActivityCancellationType, proxyActivities, type RetryPolicy } from "@temporalio/workflow";
import type {
  Asked,
  ChunkStanding,
  Committed,
  CompareInput,
  EncodeInput,
  EncodeOutcome,
  GenerateInput,
  GenerateOutcome,
  IndexPage,
  JobRecord,
  ManifestRef,
  Missing,
  ModelIdentity,
  QueryInput,
  Stage,
  Timing,
  Topology,
} from "../messages/job.ts";
import { jobsQueue, stageQueue } from "../messages/queues.ts";

/** On the queue `jobs`; they need no model. */
export interface JobActivities {
  /** List the source, check every line, commit the manifest. @throws ManifestError, PathError (not retried) */
  plan(input: PlanInput): Promise<ManifestRef>;
  /** Commit one page of the chain of results. */
  fold(input: FoldInput): Promise<Committed>;
  /** What Temporal knows about chunks that have not reported. */
  askAfter(input: AskInput): Promise<ChunkStanding[]>;
}

export interface PlanInput {
  readonly jobId: string;
  readonly source: string;
  readonly imageFolder?: string;
  readonly asked: Asked;
  /** Items of a full window, at most. */
  readonly itemsInFlight: number;
  readonly attempt: number;
  /** URI of the attempt's folder. */
  readonly folder: string;
  /** Attempts before this one, whose failures are this one's items; empty for the first. */
  readonly previous: readonly JobRecord[];
}

export interface FoldInput {
  readonly folder: string;
  readonly page: IndexPage;
}

export interface AskInput {
  readonly chunks: readonly { readonly chunk: number; readonly workflowId: string }[];
}

/** Of one chunk, on the queue of their stage. */
export interface ChunkActivities {
  encode(input: EncodeInput): Promise<EncodeOutcome>;
  query(input: QueryInput): Promise<EncodeOutcome>;
  generate(input: GenerateInput): Promise<GenerateOutcome>;
}

/** Of one chunk, by a model that compares images with texts: `compare` on the queue of query, or of encode when fused. */
export interface CompareActivities {
  encode(input: EncodeInput): Promise<EncodeOutcome>;
  compare(input: CompareInput): Promise<GenerateOutcome>;
}

/** Of one image, on the `.now` queue of their stage. Mistakes throw, they are not data. */
export interface AnswerActivities {
  encodeOne(input: EncodeOneInput): Promise<PromptRef>;
  queryOne(input: QueryOneInput): Promise<PromptRef | { readonly missing: keyof Missing }>;
  generateOne(
    input: GenerateOneInput,
  ): Promise<{ readonly text: string; readonly token_ids: readonly number[] } | { readonly missing: keyof Missing }>;
}

export interface EncodeOneInput {
  readonly asked: Asked;
  readonly image: string;
  /** Publish even if it is there. */
  readonly overwrite: boolean;
}

/** Keys in the prompt store; `features` in a split topology only. */
export interface PromptRef {
  readonly prompt: string;
  readonly features?: string;
  /** Hex SHA-256 of the image file's bytes. */
  readonly image?: string;
}

export interface QueryOneInput {
  readonly asked: Asked;
  readonly encoded: PromptRef;
  readonly overwrite: boolean;
}

export interface GenerateOneInput {
  readonly asked: Asked;
  readonly prompt: string;
  readonly image?: string;
}

export const defaultTiming: Timing = { heartbeatSeconds: 20, silentSeconds: 60 };

/** Infrastructure comes back; mistakes are marked non-retryable where they are found. */
const untilItWorks: RetryPolicy = { initialInterval: "500ms", backoffCoefficient: 2, maximumInterval: "15s" };

/** Activities of the workflow `job`. */
export function jobActivities(timing: Timing): JobActivities {
  const { plan } = proxyActivities<JobActivities>({
    taskQueue: jobsQueue,
    startToCloseTimeout: "4h", // listing ten million files of a slow mount
    heartbeatTimeout: `${timing.heartbeatSeconds}s`, // a listing that is silent for so long is given to another worker
    cancellationType: ActivityCancellationType.TRY_CANCEL,
    retry: untilItWorks,
  });
  const { fold, askAfter } = proxyActivities<JobActivities>({
    taskQueue: jobsQueue,
    startToCloseTimeout: "10s", // one small object, or one request a chunk of the window; a frozen worker costs this
    retry: untilItWorks,
  });
  return { plan, fold, askAfter };
}

/** Activities of the workflow `chunk`. Work waits for a worker as long as it takes: workers may come days later. */
export function chunkActivities(model: ModelIdentity, timing: Timing): ChunkActivities {
  const on = (stage: Stage) => stageActivities<ChunkActivities>(stage, model, timing);
  return { encode: on("encode").encode, query: on("query").query, generate: on("generate").generate };
}

/** The same of a model that compares. */
export function compareActivities(model: ModelIdentity, topology: Topology, timing: Timing): CompareActivities {
  const on = (stage: Stage) => stageActivities<CompareActivities>(stage, model, timing);
  return { encode: on("encode").encode, compare: on(topology === "fused" ? "encode" : "query").compare };
}

function stageActivities<Activities extends object>(stage: Stage, model: ModelIdentity, timing: Timing) {
  return proxyActivities<Activities>({
    taskQueue: stageQueue(stage, model),
    startToCloseTimeout: "12h", // 512 items at 80 s each, on the slowest adapter; heartbeats notice a worker's end
    heartbeatTimeout: `${timing.heartbeatSeconds}s`, // a worker that died or froze; several times the longest submit
    cancellationType: ActivityCancellationType.TRY_CANCEL, // what a cancelled activity still commits changes nothing
    retry: untilItWorks,
  });
}

/** Activities of the workflow `answer`. */
export function answerActivities(model: ModelIdentity, priority: Priority): AnswerActivities {
  const on = (stage: Stage) =>
    proxyActivities<AnswerActivities>({
      taskQueue: stageQueue(stage, model, "now"),
      scheduleToCloseTimeout: "10m", // nobody waits longer for one answer; a fleet without the model ends here
      startToCloseTimeout: "5m", // one image on the slowest adapter
      heartbeatTimeout: "15s", // a worker that died or froze
      cancellationType: ActivityCancellationType.TRY_CANCEL,
      retry: { ...untilItWorks, initialInterval: "100ms", maximumInterval: "2s" },
      priority,
    });
  return {
    encodeOne: on("encode").encodeOne,
    queryOne: on("query").queryOne,
    generateOne: on("generate").generateOne,
  };
}
