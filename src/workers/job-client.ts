// Jobs from outside: submit, follow, steer and retry them, over any Temporal server.

import { setTimeout as delay } from "node:timers/promises";
import {
  Client,
  Connection,
  isGrpcServiceError,
  type WorkflowExecutionStatusName,
  WorkflowFailedError,
  type WorkflowHandle,
  WorkflowNotFoundError,
} from "@temporalio/client";
import {
  ApplicationFailure,
  defineSearchAttributeKey,
  SearchAttributeType,
  TypedSearchAttributes,
  WorkflowExecutionAlreadyStartedError,
} from "@temporalio/common";
import { uploadImage } from "../jobs/uploads.ts";
import type { Asked, JobInput, JobProgress, JobRequest, ModelIdentity, Stage, Timing } from "../messages/job.ts";
import { jobsQueue, jobWorkflowId, stageQueue } from "../messages/queues.ts";
import { type AnswerInput, type AnswerResult, answerWorkflow } from "../workflows/answer-types.ts";
import { JobError, JobRefusedError, NoWorkerError } from "./job-errors.ts";
import { searchAttributes } from "./servers/temporal.ts";
import { type Environment, temporalSettings, temporalUnavailable } from "./temporal-settings.ts";

/** How a job stands: what it says, and what Temporal says about its newest run. */
export interface JobStatus {
  readonly progress: JobProgress;
  readonly execution: WorkflowExecutionStatusName;
}

/** The input of `answer`, with an image by URI or as a small file's bytes. */
export type AnswerRequest = Omit<AnswerInput, "image"> & { readonly image: string | Uint8Array };

/** Milliseconds for one request; a query waits for a worker. */
const requestTimeout = 5000;

/** A worker asks for work at least once a minute. */
const pollerSeconds = 70;

/** TASK_QUEUE_TYPE_ACTIVITY */
const activityQueue = 2;

const modelAttribute = defineSearchAttributeKey("BlipfleetModel", SearchAttributeType.KEYWORD);
const datasetAttribute = defineSearchAttributeKey("BlipfleetDataset", SearchAttributeType.KEYWORD);

/**
 * Connect to the Temporal server of the environment.
 * @throws TemporalConfigError, TemporalUnavailableError
 */
export async function connectJobs(environment: Environment = process.env): Promise<JobClient> {
  const settings = temporalSettings(environment);
  const { address, apiKey, tls, namespace } = settings;
  try {
    const connection = await Connection.connect({
      address,
      connectTimeout: "5s",
      ...(apiKey === undefined ? {} : { apiKey }),
      ...(tls === undefined ? {} : { tls }),
    });
    return new JobClient(
      new Client({ connection, namespace }),
      (error) => temporalUnavailable(settings, error),
      environment,
    );
  } catch (error) {
    throw temporalUnavailable(settings, error);
  }
}

/** BLIPFLEET_HEARTBEAT_TIMEOUT and BLIPFLEET_SILENT_AFTER, both in seconds. */
export function timingOf(environment: Environment): Timing {
  return {
    heartbeatSeconds: positive(environment.BLIPFLEET_HEARTBEAT_TIMEOUT) ?? 20,
    silentSeconds: positive(environment.BLIPFLEET_SILENT_AFTER) ?? 60,
  };
}

function positive(text: string | undefined): number | undefined {
  const value = Number(text);
  return text && value > 0 && Number.isFinite(value) ? value : undefined;
}

export class JobClient {
  readonly client: Client;
  readonly #unavailable: (error: unknown) => Error;
  readonly #environment: Environment;

  constructor(client: Client, unavailable: (error: unknown) => Error, environment: Environment) {
    this.client = client;
    this.#unavailable = unavailable;
    this.#environment = environment;
  }

  /**
   * Start a job. It begins to plan as soon as a worker takes it; see planned(). The id of a job that could not be planned
   * is free: once the mistake in its source is mended, the same submit works.
   * @throws JobError when there is a job of this id, TemporalUnavailableError
   */
  async submit(request: JobRequest): Promise<void> {
    try {
      const input = { timing: timingOf(this.#environment), ...request };
      await this.#start(input, "REJECT_DUPLICATE").catch(async (error: unknown) => {
        const isTaken = error instanceof WorkflowExecutionAlreadyStartedError;
        if (!isTaken || !(await this.#neverPlanned(request.jobId))) throw error;
        await this.#start(input, "ALLOW_DUPLICATE");
      });
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
      throw new JobError(
        `job: expected ${request.jobId} to be a new id, got one that exists; choose another, or retry that job`,
        { cause: error },
      );
    }
  }

  /**
   * Wait until the job has its manifest.
   * @returns how it stands then; null when no worker took it within `milliseconds`
   * @throws JobRefusedError when it could not be planned; JobError when it has failed since
   */
  async planned(jobId: string, milliseconds = 20_000): Promise<JobStatus | null> {
    const deadline = Date.now() + milliseconds;
    for (;;) {
      const status = await this.status(jobId).catch((error: unknown) => {
        if (error instanceof NoWorkerError) return null;
        throw error;
      });
      if (status !== null && (status.execution === "FAILED" || status.progress.problem !== null)) {
        throw jobFailed(jobId, status);
      }
      if (status !== null && status.progress.state !== "planning") return status;
      if (Date.now() > deadline) return null;
      await delay(200);
    }
  }

  /**
   * The queues that this job needs and that no worker has asked for work lately, by model: its items wait there. What
   * Temporal does not say within seconds counts as served.
   * @throws never
   */
  async unserved(asked: StagesAsked): Promise<{ readonly model: ModelIdentity; readonly queues: readonly string[] }[]> {
    const waiting = await Promise.all(
      stagesNeeded(asked).map(async ({ model, stages }) => {
        const queues = stages.map((stage) => stageQueue(stage, model));
        const served = await Promise.all(queues.map((queue) => this.#isServed(queue)));
        return { model, queues: queues.filter((_, i) => !served[i]) };
      }),
    );
    return waiting.filter(({ queues }) => queues.length > 0);
  }

  async #isServed(queue: string): Promise<boolean> {
    try {
      const { workflowService, options } = this.client;
      const { pollers } = await this.client.withDeadline(Date.now() + requestTimeout, () =>
        workflowService.describeTaskQueue({
          namespace: options.namespace,
          taskQueue: { name: queue },
          taskQueueType: activityQueue,
        }),
      );
      const since = Date.now() / 1000 - pollerSeconds;
      return (pollers ?? []).some(({ lastAccessTime }) => Number(lastAccessTime?.seconds ?? 0) > since);
    } catch {
      return true;
    }
  }

  /** @throws JobError when there is no such job, NoWorkerError, TemporalUnavailableError */
  async status(jobId: string): Promise<JobStatus> {
    return this.#about(jobId, async (handle) => {
      const { status } = await handle.describe();
      return { progress: await progressOf(handle, status.name), execution: status.name };
    });
  }

  /** The job's status now and after every change, until it has ended. @throws as status() */
  async *watch(
    jobId: string,
    { intervalMs = 500, signal }: { readonly intervalMs?: number; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<JobStatus> {
    let last = "";
    for (;;) {
      signal?.throwIfAborted();
      const status = await this.status(jobId);
      const text = JSON.stringify(status);
      if (text !== last) yield status;
      last = text;
      if (status.execution !== "RUNNING") return;
      await delay(intervalMs, undefined, signal === undefined ? {} : { signal });
    }
  }

  /** No more chunks start; those in flight end. @throws JobError when it does not run, TemporalUnavailableError */
  pause(jobId: string): Promise<void> {
    return this.#signal(jobId, "pause");
  }

  /** @throws as pause() */
  resume(jobId: string): Promise<void> {
    return this.#signal(jobId, "resume");
  }

  /** Chunks in flight are cancelled; what is committed stays. @throws as pause() */
  cancel(jobId: string): Promise<void> {
    return this.#signal(jobId, "cancel");
  }

  /**
   * Start the next attempt: every item that failed or was never reached.
   * @returns the attempt's number and how many items it has
   * @throws JobError when the job runs, or all items are done; NoWorkerError, TemporalUnavailableError
   */
  async retry(jobId: string): Promise<{ readonly attempt: number; readonly items: number }> {
    const { progress, execution } = await this.status(jobId);
    if (execution === "RUNNING") {
      throw new JobError(`retry: expected ${jobId} to have ended, got one that runs; wait for it or cancel it`);
    }
    const items = progress.total - progress.done;
    const isPlanned = progress.records.at(-1)?.manifest !== null;
    if (isPlanned && items === 0) {
      throw new JobError(`retry: expected items that failed in ${jobId}, got none; all ${progress.total} are done`);
    }
    const attempt = progress.attempt + 1;
    await this.#start({ ...progress.request, attempt, previous: progress.records }, "ALLOW_DUPLICATE");
    return { attempt, items };
  }

  /**
   * Ask one question about one image and wait for the answer. An image given as bytes is kept in the uploads first; it
   * never enters a history.
   * @throws JobError with the mistake's class, StoreError
   */
  async answer(workflowId: string, request: AnswerRequest): Promise<AnswerResult> {
    // What is no request at all goes to the workflow as it is: its check has the sentence for it.
    const image = request?.image;
    const input =
      image instanceof Uint8Array ? { ...request, image: await uploadImage(image, this.#environment) } : request;
    try {
      return await this.#call(() =>
        this.client.workflow.execute<(input: AnswerInput) => Promise<AnswerResult>>(answerWorkflow, {
          taskQueue: jobsQueue,
          workflowId,
          args: [input as AnswerInput],
          priority: { priorityKey: 1, fairnessKey: "answer" },
        }),
      );
    } catch (error) {
      if (error instanceof WorkflowFailedError)
        throw new JobError(`answer: ${mistakeText(error.cause)}`, { cause: error });
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.client.connection.close();
  }

  /** Ended without a manifest: nothing was run, and nothing is kept. */
  async #neverPlanned(jobId: string): Promise<boolean> {
    const status = await this.status(jobId).catch(() => null); // nobody can say: then it is taken
    if (status === null || status.execution === "RUNNING") return false;
    return wasNeverPlanned(status.progress);
  }

  async #start(input: JobInput, workflowIdReusePolicy: "REJECT_DUPLICATE" | "ALLOW_DUPLICATE"): Promise<void> {
    const hasAttributes = await this.#hasSearchAttributes();
    const named = { model: input.model.ref, dataset: input.source };
    await this.#call(() =>
      this.client.workflow.start<(input: JobInput) => Promise<JobProgress>>("job", {
        taskQueue: jobsQueue,
        workflowId: jobWorkflowId(input.jobId),
        workflowIdReusePolicy,
        args: [{ ...input, visibility: hasAttributes ? "search-attributes" : "memo" }],
        priority: { priorityKey: 3, fairnessKey: input.jobId.slice(0, 64) },
        memo: named,
        ...(hasAttributes
          ? {
              typedSearchAttributes: new TypedSearchAttributes([
                { key: modelAttribute, value: keyword(named.model) },
                { key: datasetAttribute, value: keyword(named.dataset) },
              ]),
            }
          : {}),
      }),
    );
  }

  /** Servers that do not let us ask (or have not been told of ours) get a memo instead. */
  async #hasSearchAttributes(): Promise<boolean> {
    const { connection, options } = this.client;
    if (!(connection instanceof Connection)) return false;
    try {
      const request = { namespace: options.namespace };
      const { customAttributes } = await connection.withDeadline(Date.now() + requestTimeout, () =>
        connection.operatorService.listSearchAttributes(request),
      );
      return Object.keys(searchAttributes).every((name) => name in (customAttributes ?? {}));
    } catch {
      return false;
    }
  }

  #signal(jobId: string, name: "pause" | "resume" | "cancel"): Promise<void> {
    return this.#about(jobId, async (handle) => {
      const { status } = await handle.describe();
      if (status.name !== "RUNNING") {
        throw new JobError(`${name}: expected ${jobId} to run, got one that is ${status.name.toLowerCase()}`);
      }
      await handle.signal(name);
    });
  }

  async #about<T>(jobId: string, ask: (handle: WorkflowHandle) => Promise<T>): Promise<T> {
    try {
      const handle = this.client.workflow.getHandle(jobWorkflowId(jobId));
      return await this.#call(() => this.client.withDeadline(Date.now() + requestTimeout, () => ask(handle)));
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error;
      throw new JobError(`job: expected a job ${jobId}, got none in namespace ${this.client.options.namespace}`, {
        cause: error,
      });
    }
  }

  /** One request, bounded in time, with Temporal's absence and the workers' told apart. */
  async #call<T>(request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (error) {
      const cause = error instanceof Error && isGrpcServiceError(error.cause) ? error.cause : error;
      if (!isGrpcServiceError(cause)) throw error;
      if (cause.code === grpc.unavailable) throw this.#unavailable(error);
      if (noWorker.has(cause.code)) {
        throw new NoWorkerError(
          'job: expected a worker on queue "jobs" to answer, got none; start one with "blipfleet worker"',
          { cause: error },
        );
      }
      throw error;
    }
  }
}

/** What decides which stages a job goes through. */
type StagesAsked = Pick<Asked, "task" | "model" | "filter" | "topology">;

/** By model. */
function stagesNeeded({
  task,
  model,
  filter,
  topology,
}: StagesAsked): { model: ModelIdentity; stages: readonly Stage[] }[] {
  const images: readonly Stage[] = topology === "split" ? ["encode", "query"] : ["encode"];
  if (task === "match" || task === "classify" || task === "index") return [{ model, stages: images }];
  const texts = { model, stages: [...images, "generate"] as const };
  return filter === undefined ? [texts] : [texts, { model: filter.model, stages: images }];
}

/** Status codes of gRPC. */
const grpc = { cancelled: 1, deadlineExceeded: 4, failedPrecondition: 9, unavailable: 14 } as const;

/** What a query ends with when no worker answers: our deadline, the server's, or no poller seen for a while. */
const noWorker: ReadonlySet<number> = new Set([grpc.cancelled, grpc.deadlineExceeded, grpc.failedPrecondition]);

/** A job that has ended says so in its history, without any worker. */
async function progressOf(handle: WorkflowHandle, execution: WorkflowExecutionStatusName): Promise<JobProgress> {
  if (execution === "COMPLETED") return (await handle.result()) as JobProgress;
  if (execution === "FAILED") {
    const told = await handle.result().catch((error: unknown) => lastWordsOf(error));
    if (told !== undefined) return told as JobProgress;
  }
  return handle.query<JobProgress>("progress");
}

/** What a failed job handed over with its failure. */
function lastWordsOf(error: unknown): JobProgress | undefined {
  if (!(error instanceof WorkflowFailedError)) throw error;
  const { cause } = error;
  return cause instanceof ApplicationFailure ? (cause.details?.[0] as JobProgress | undefined) : undefined;
}

function jobFailed(jobId: string, { progress }: JobStatus): Error {
  const { type, message } = progress.problem ?? { type: "Error", message: "no reason was recorded" };
  if (wasNeverPlanned(progress)) return new JobRefusedError({ type, message });
  return new JobError(`job ${jobId} failed: ${type}: ${message}`);
}

function wasNeverPlanned({ records }: JobProgress): boolean {
  return records.every(({ manifest }) => manifest === null);
}

function mistakeText(cause: unknown): string {
  for (let error = cause; error instanceof Error; error = error.cause) {
    if (error instanceof ApplicationFailure) return `${error.type}: ${error.message}`;
  }
  return String(cause);
}

/** Temporal's keywords hold at most 255 bytes. */
function keyword(text: string): string {
  let kept = text;
  while (Buffer.byteLength(kept, "utf8") > 255) kept = kept.slice(Math.ceil(kept.length / 20));
  return kept;
}
