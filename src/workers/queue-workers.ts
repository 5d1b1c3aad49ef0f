// One Temporal Worker per queue that a process serves: its models' stages, batch and `.now`, and the queue `jobs`.

import { Context } from "@temporalio/activity";
import { type NativeConnection, Worker, type WorkerOptions } from "@temporalio/worker";
import type { RootCheck } from "../jobs/roots.ts";
import type { Stage } from "../messages/job.ts";
import { jobsQueue, stageQueue } from "../messages/queues.ts";
import type {
  AnswerActivities,
  ChunkActivities,
  CompareActivities,
  JobActivities,
} from "../workflows/stage-activities.ts";
import { encodeOne, generateOne, queryOne } from "./activities/answer.ts";
import { compare, encodeForComparing } from "./activities/compare.ts";
import { encode, query } from "./activities/encode.ts";
import { generate } from "./activities/generate.ts";
import { askAfter, fold, type Planning, plan } from "./activities/jobs.ts";
import { toFailure } from "./activities/mistakes.ts";
import { type AnyServing, type ComparingServing, type Serving, writesTexts } from "./activities/serving.ts";
import { findBundle } from "./bundle-workflows.ts";
import type { WorkerMetrics } from "./metrics.ts";
import type { Logger } from "./worker-log.ts";

/** Which Worker Deployment this process belongs to. */
export type Versioning = NonNullable<WorkerOptions["workerDeploymentOptions"]>;

export interface QueueWorkersOptions {
  readonly connection: NativeConnection;
  readonly namespace: string;
  readonly identity: string;
  readonly servings: readonly AnyServing[];
  /** Which sources `plan` may read. */
  readonly roots: RootCheck;
  readonly stages: readonly Stage[];
  /** Serve workflows, plan, fold and askAfter. */
  readonly jobs: boolean;
  /** Batch activities of one stage at a time: while one waits for its last rows, the next fills the batch. */
  readonly batchSlots: number;
  /** Answers of one stage at a time; batch work cannot take these. */
  readonly nowSlots: number;
  /** Seconds that activities have to end after a stop; longer than a batch of the GPU. */
  readonly graceSeconds: number;
  readonly versioning?: Versioning;
  /** Path of the bundled workflows. Default: beside this build. */
  readonly bundle?: string;
  readonly metrics: WorkerMetrics;
  readonly log: Logger;
}

/** @throws BundleError, and what Worker.create() throws */
export async function openQueueWorkers(options: QueueWorkersOptions): Promise<Worker[]> {
  const shared = {
    connection: options.connection,
    namespace: options.namespace,
    identity: options.identity,
    shutdownGraceTime: `${options.graceSeconds}s`,
    ...(options.versioning === undefined ? {} : { workerDeploymentOptions: options.versioning }),
  } as const;
  const opening: Promise<Worker>[] = [];
  if (options.jobs) {
    opening.push(
      Worker.create({
        ...shared,
        taskQueue: jobsQueue,
        workflowBundle: { codePath: findBundle(options.bundle) },
        activities: watchAll(jobActivities(options), options),
      }),
    );
  }
  for (const serving of options.servings) {
    const { card } = serving.stages;
    for (const stage of options.stages.filter((each) => hasStage(serving, each))) {
      opening.push(
        Worker.create({
          ...shared,
          taskQueue: stageQueue(stage, card),
          activities: watchAll(batchActivities(serving, stage), options),
          maxConcurrentActivityTaskExecutions: options.batchSlots,
        }),
      );
      if (!writesTexts(serving)) continue;
      opening.push(
        Worker.create({
          ...shared,
          taskQueue: stageQueue(stage, card, "now"),
          activities: watchAll({ [`${stage}One`]: nowActivities(serving)[`${stage}One`] }, options),
          maxConcurrentActivityTaskExecutions: options.nowSlots,
        }),
      );
    }
  }
  return Promise.all(opening);
}

function jobActivities(planning: Planning): JobActivities {
  return { plan: (input) => plan(input, planning), fold, askAfter };
}

/** Models that compare have no generate. */
export function hasStage(serving: AnyServing, stage: Stage): boolean {
  return stage !== "generate" || writesTexts(serving);
}

function batchActivities(serving: AnyServing, stage: Stage): Partial<ChunkActivities & CompareActivities> {
  if (writesTexts(serving)) return { [stage]: textActivities(serving)[stage] };
  const { encode, compare } = compareActivities(serving);
  return stage === "encode" ? { encode, compare } : { compare };
}

function textActivities(serving: Serving): ChunkActivities {
  return {
    encode: (input) => encode(serving, input),
    query: (input) => query(serving, input),
    generate: (input) => generate(serving, input),
  };
}

function compareActivities(serving: ComparingServing): CompareActivities {
  return {
    encode: (input) => encodeForComparing(serving, input),
    compare: (input) => compare(serving, input),
  };
}

function nowActivities(serving: Serving): AnswerActivities {
  return {
    encodeOne: (input) => encodeOne(serving, input),
    queryOne: (input) => queryOne(serving, input),
    generateOne: (input) => generateOne(serving, input),
  };
}

type Activity = (input: never) => Promise<unknown>;

/** Time, log and name the failures of every activity. */
function watchAll(
  activities: object,
  { metrics, log }: Pick<QueueWorkersOptions, "metrics" | "log">,
): Record<string, Activity> {
  return Object.fromEntries(
    Object.entries(activities).map(([name, activity]) => [
      name,
      (input: never) => watched(name, activity as Activity, input, metrics, log),
    ]),
  );
}

async function watched(
  name: string,
  activity: Activity,
  input: never,
  metrics: WorkerMetrics,
  log: Logger,
): Promise<unknown> {
  const started = performance.now();
  const { attempt, taskQueue } = Context.current().info;
  const fields = { activity: name, queue: taskQueue, try: attempt, ...jobFields(input) };
  const seconds = () => (performance.now() - started) / 1000;
  try {
    const result = await activity(input);
    metrics.activity(name, "done", seconds());
    log.info({ ...fields, seconds: Number(seconds().toFixed(3)) }, `${name} done`);
    return result;
  } catch (error) {
    const failure = toFailure(error, attempt);
    const type = error instanceof Error ? error.name : "Error";
    metrics.activity(name, type, seconds());
    log.warn({ ...fields, seconds: Number(seconds().toFixed(3)), error: failure.message, type }, `${name} gave up`);
    throw failure;
  }
}

/** `job` and `chunk` of an activity's input, as log fields. */
function jobFields(input: unknown): Record<string, unknown> {
  if (typeof input !== "object" || input === null) return {};
  return {
    ...("jobId" in input ? { job: input.jobId } : {}),
    ...("chunk" in input ? { chunk: input.chunk } : {}),
    ...("round" in input && input.round !== 0 ? { round: input.round } : {}),
  };
}
