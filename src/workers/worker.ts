// The worker process: GPU, NATS and Temporal together, until it is told to stop.
//
// 1. Nothing is served before the GPU has passed its self-test and the prompt store accepts this model's sizes.
// 2. Temporal or NATS down at the start is an outage: say so and try again. A wrong setting is an error.
// 3. SIGTERM drains: no new items, those under way end and are committed, the rest goes to other workers.
// 4. A GPU that is lost ends the process, non-zero, with the reason as its last line.

import { hostname } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type { NatsConnection } from "@nats-io/transport-node";
import { NativeConnection, type Worker } from "@temporalio/worker";
import type { AdapterReport } from "../gpu/adapter.ts";
import { allowedRoots, cacheFolder, rootCheck } from "../jobs/roots.ts";
import { uploadsFolder } from "../jobs/uploads.ts";
import { connectNats } from "../messages/connect.ts";
import { NatsUnavailableError, PromptStoreUnavailableError } from "../messages/errors.ts";
import { openJetStreamPromptStore } from "../messages/jetstream-prompt-store.ts";
import type { Stage } from "../messages/job.ts";
import type { PromptStore } from "../messages/prompt-store.ts";
import { stageQueue } from "../messages/queues.ts";
import { type CheckpointCard, type ContrastStages, featuresForm, type Stages } from "../stages.ts";
import { InFlight } from "./activities/in-flight.ts";
import { activationBytes, bytesOfForm } from "./activities/prompt-names.ts";
import { type AnyServing, sharesFeatures, writesTexts } from "./activities/serving.ts";
import { findBundle } from "./bundle-workflows.ts";
import type { ModelRequest } from "./gpu-protocol.ts";
import { type Health, type HealthOptions, serveHealth } from "./health.ts";
import { WorkerMetrics } from "./metrics.ts";
import { hasStage, openQueueWorkers, type Versioning } from "./queue-workers.ts";
import { installRuntime } from "./runtime.ts";
import { openStagesGroup, type Planned, type StagesGroup } from "./stages.ts";
import { type Environment, temporalSettings, temporalUnavailable } from "./temporal-settings.ts";
import { workerDefaults } from "./worker-defaults.ts";
import { type Logger, workerLog } from "./worker-log.ts";

export const allStages: readonly Stage[] = ["encode", "query", "generate"];

/** What a worker needs of the models of its process; StagesGroup is one. */
export interface ServedGroup
  extends Pick<StagesGroup, "close" | "fatal" | "report">,
    Partial<Pick<StagesGroup, "variants">> {
  open(request: ModelRequest): Promise<(Stages | ContrastStages) & Partial<Planned>>;
  stats(): Promise<{ readonly load: number }>;
}

export interface RunWorkerOptions {
  /** `purpose`: the main one of its family. Default: it writes texts. */
  readonly models: readonly Pick<ModelRequest, "ref" | "dtype" | "purpose" | "settings">[];
  /** Which stages' queues to serve. Default: all. */
  readonly stages?: readonly Stage[];
  /** Serve the queue `jobs` as well. Default true. */
  readonly jobs?: boolean;
  /** Port of /metrics, /healthz and /readyz; 0: a free one, which the log names; null: none. Default 9464, or a free one where it is taken. */
  readonly metricsPort?: number | null;
  /** Batch activities of one stage at a time, 1 to 4. Default 2. */
  readonly batchSlots?: number;
  /** Answers of one stage at a time. Default 4. */
  readonly nowSlots?: number;
  /** Items of one activity under way at a time. Default 32. */
  readonly itemsInFlight?: number;
  /** Seconds that activities have to end after a stop. Default 60. */
  readonly graceSeconds?: number;
  /** TEMPORAL_*, NATS_*, BLIPFLEET_*. Default: the process's. */
  readonly environment?: Environment;
  /** Aborted: drain and return. SIGTERM and SIGINT do the same. */
  readonly stop?: AbortSignal;
  readonly log?: Logger;
  /** Opens the GPU; tests put stages without one here. */
  readonly openGroup?: (log: Logger) => Promise<ServedGroup>;
  /** Called when the worker takes work. */
  readonly onReady?: (ready: {
    readonly metricsPort: number | null;
    readonly cards: readonly CheckpointCard[];
  }) => void;
  /** Ends the process after a fatal error of the GPU. Default process.exit. */
  readonly exit?: (code: number) => void;
}

/** The default items under way of one activity: twice a full batch of the largest programs. */
const defaultItemsInFlight = 32;

/** Milliseconds for failures of activities to reach Temporal before a process with a dead GPU ends. */
const lastWords = 1500;

/**
 * Serve until `stop`, SIGTERM or SIGINT; resolves when everything has ended in order.
 * @throws BundleError, AdapterError, KernelError, WeightsError and others of loading a model, NatsConfigError,
 * PromptStoreError, PathError, TemporalConfigError, MetricsPortError: what a person has to mend
 */
export async function runWorker(options: RunWorkerOptions): Promise<void> {
  const environment = options.environment ?? process.env;
  const log = options.log ?? workerLog();
  const stages = options.stages ?? allStages;
  const jobs = options.jobs ?? true;
  if (jobs) findBundle();
  const settings = temporalSettings(environment);
  const roots = rootCheck([...allowedRoots(environment), uploadsFolder(environment)]);
  const draining = new AbortController();
  const forgetSignals = stopOnSignals(draining, options.stop, log);
  const metrics = new WorkerMetrics();
  const closers: (() => Promise<unknown>)[] = [];
  try {
    const sdkMetrics = await installRuntime(log);
    // Before anything is loaded: a port that is taken is told at once, and a scraper sees the worker start.
    let problems = (): readonly string[] => ["starting"];
    const watched = { metrics, problems: () => problems(), ...(sdkMetrics ? { sdkMetrics } : {}) };
    const health = options.metricsPort === null ? null : await openHealth(options.metricsPort, watched, log);
    if (health !== null) closers.push(() => health.close());
    const tell = (line: string) => log.warn(line);
    const openGroup = options.openGroup ?? (() => openStagesGroup({ cacheFolder: cacheFolder(environment), tell }));
    const group = await openGroup(log);
    closers.push(() => group.close("reject"));
    const worker = `${hostname()} pid ${process.pid}`;
    const adapter = adapterName(group.report);
    const { refused = [], tables = [] } = group.variants ?? {};
    const kernels = { tables: tables.map(({ file }) => file).join(", "), ...(refused.length > 0 ? { refused } : {}) };
    log.info({ adapter, worker, ...kernels }, "adapter opened");

    const nats = await untilAvailable("NATS", log, draining.signal, [NatsUnavailableError], () =>
      connectNats(environment, { name: `blipfleet worker ${worker}` }),
    );
    closers.push(() => nats.close());
    const natsState = watchNats(nats, log);
    const prompts = await untilAvailable("NATS", log, draining.signal, [PromptStoreUnavailableError], () =>
      openJetStreamPromptStore(nats, { producer: `${worker} ${adapter}`, ...streamSettings(environment) }),
    );
    closers.push(() => prompts.close());

    const servings: AnyServing[] = [];
    const publishing = new InFlight();
    for (const { purpose = "texts", ...model } of options.models) {
      const opened = await group.open({ ...model, stages: stagesToLoad(stages), purpose });
      const serving = {
        stages: opened,
        prompts,
        roots,
        maker: { adapter, worker },
        metrics,
        itemsInFlight: options.itemsInFlight ?? defaultItemsInFlight,
        draining: draining.signal,
        publishing,
      } as AnyServing; // the family of its card tells which
      servings.push(serving);
      await checkSizes(prompts, serving, stages);
      const served = stages.filter((stage) => hasStage(serving, stage));
      logModel(log, opened, served);
    }
    metrics.gauge(
      "blipfleet_gpu_rows",
      "Rows that wait for the GPU or are on it",
      async () => (await group.stats()).load,
    );

    const connection = await untilAvailable("Temporal", log, draining.signal, null, async () => {
      try {
        const { address, apiKey, tls } = settings;
        return await NativeConnection.connect({
          address,
          ...(apiKey === undefined ? {} : { apiKey }),
          ...(tls === undefined ? {} : { tls }),
        });
      } catch (error) {
        throw temporalUnavailable(settings, error);
      }
    });
    closers.push(() => connection.close());
    const versioning = versioningSettings(environment);
    const workers = await openQueueWorkers({
      connection,
      namespace: settings.namespace,
      identity: `${worker} ${adapter}`,
      servings,
      roots,
      stages,
      jobs,
      batchSlots: options.batchSlots ?? workerDefaults.batchSlots,
      nowSlots: options.nowSlots ?? workerDefaults.nowSlots,
      graceSeconds: options.graceSeconds ?? workerDefaults.graceSeconds,
      ...(versioning === undefined ? {} : { versioning }),
      metrics,
      log,
    });

    problems = () => [
      ...workers.flatMap((each) =>
        each.getState() === "RUNNING" ? [] : [`queue ${each.options.taskQueue} is ${each.getState()}`],
      ),
      ...(natsState.connected ? [] : ["NATS is not connected"]),
      ...(draining.signal.aborted ? ["stopping"] : []),
    ];

    const ended = runAll(workers, draining.signal);
    void group.fatal.then((error) => {
      if (!draining.signal.aborted) void endProcess(error, log, draining, options.exit ?? process.exit);
    });
    announce(log, settings.address, health, workers);
    options.onReady?.({ metricsPort: health?.port ?? null, cards: servings.map((serving) => serving.stages.card) });
    await ended;
    log.info("drained and stopped");
  } catch (error) {
    if (draining.signal.aborted && error === draining.signal.reason) return; // stopped before it had begun
    throw error;
  } finally {
    forgetSignals();
    for (const close of closers.reverse()) {
      await close().catch((error: unknown) => log.warn({ error: String(error) }, "closing"));
    }
  }
}

/** On `wanted`; left out, on the usual port or else a free one, which the log names. @throws MetricsPortError */
async function openHealth(
  wanted: number | undefined,
  watched: Omit<HealthOptions, "port" | "orFree">,
  log: Logger,
): Promise<Health> {
  if (wanted !== undefined) return serveHealth({ ...watched, port: wanted });
  const usual = workerDefaults.metricsPort;
  const health = await serveHealth({ ...watched, port: usual, orFree: true });
  if (health.port !== usual) {
    log.info({ metrics: `http://127.0.0.1:${health.port}/metrics` }, `port ${usual} is taken, metrics are on another`);
  }
  return health;
}

/** Run all until `stop`, then let them drain. When one fails, the others stop and its error is thrown. */
async function runAll(workers: readonly Worker[], stop: AbortSignal): Promise<void> {
  const shutdown = () => {
    for (const worker of workers) if (worker.getState() === "RUNNING") worker.shutdown();
  };
  stop.addEventListener("abort", shutdown, { once: true });
  const runs = workers.map((worker) =>
    worker.run().catch((error: unknown) => {
      shutdown();
      throw error;
    }),
  );
  if (stop.aborted) shutdown();
  const ends = await Promise.allSettled(runs);
  stop.removeEventListener("abort", shutdown);
  for (const end of ends) if (end.status === "rejected") throw end.reason;
}

/** The GPU is gone: let the failures of its activities reach Temporal, then end. */
async function endProcess(
  error: Error,
  log: Logger,
  draining: AbortController,
  exit: (code: number) => void,
): Promise<void> {
  draining.abort(error);
  await delay(lastWords);
  log.flush();
  process.stderr.write(`blipfleet worker: ${error.name}: ${error.message}; its work goes to other workers\n`);
  exit(1);
}

/** Try until it works; errors of other classes (null: none) are thrown. */
async function untilAvailable<T>(
  what: string,
  log: Logger,
  stop: AbortSignal,
  outages: readonly (abstract new (...args: never[]) => Error)[] | null,
  open: () => Promise<T>,
): Promise<T> {
  for (let pause = 500; ; pause = Math.min(pause * 2, 5000)) {
    stop.throwIfAborted();
    try {
      return await open();
    } catch (error) {
      if (outages !== null && !outages.some((outage) => error instanceof outage)) throw error;
      log.warn({ error: error instanceof Error ? error.message : String(error) }, `waiting for ${what}`);
      await delay(pause, undefined, { signal: stop }).catch(() => stop.throwIfAborted());
    }
  }
}

/** SIGTERM and SIGINT drain; a second SIGINT ends at once. */
function stopOnSignals(draining: AbortController, stop: AbortSignal | undefined, log: Logger): () => void {
  const drain = (signal: string) => {
    if (draining.signal.aborted && signal === "SIGINT") process.exit(130);
    if (!draining.signal.aborted)
      log.info({ signal }, "stopping: what is under way ends, the rest goes to other workers");
    draining.abort(new Error(signal));
  };
  const onAbort = () => drain("stop");
  process.on("SIGTERM", drain);
  process.on("SIGINT", drain);
  stop?.addEventListener("abort", onAbort, { once: true });
  if (stop?.aborted) onAbort();
  return () => {
    process.off("SIGTERM", drain);
    process.off("SIGINT", drain);
    stop?.removeEventListener("abort", onAbort);
  };
}

function watchNats(connection: NatsConnection, log: Logger): { connected: boolean } {
  const state = { connected: true };
  void (async () => {
    for await (const { type } of connection.status()) {
      if (type === "disconnect") {
        state.connected = false;
        log.warn("NATS disconnected; prompts wait until it is back");
      } else if (type === "reconnect") {
        state.connected = true;
        log.info("NATS connected again");
      }
    }
    state.connected = false;
  })();
  return state;
}

/** A fused job's encode runs the Q-Former as well, so whoever serves encode has it; it is small beside the ViT. */
function stagesToLoad(stages: readonly Stage[]): Stage[] {
  return allStages.filter((stage) => stages.includes(stage) || (stage === "query" && stages.includes("encode")));
}

/** Prompts must fit the server's messages; features only where they travel. @throws PromptStoreError */
async function checkSizes(prompts: PromptStore, serving: AnyServing, stages: readonly Stage[]): Promise<void> {
  const isSplit = stages.includes("query") !== stages.includes("encode");
  const sizes = isSplit || sharesFeatures(serving) ? [bytesOfForm(featuresForm(serving.stages.card))] : [];
  if (writesTexts(serving)) sizes.push(activationBytes("prompt", serving.stages.card));
  if (sizes.length > 0) await prompts.checkPlan({ activationBytes: Math.max(...sizes) });
}

function streamSettings(environment: Environment): { stream?: string; maxBytes?: number } {
  const maxBytes = Number(environment.BLIPFLEET_PROMPTS_MAX_BYTES);
  return {
    ...(environment.BLIPFLEET_PROMPTS_STREAM ? { stream: environment.BLIPFLEET_PROMPTS_STREAM } : {}),
    ...(Number.isSafeInteger(maxBytes) && maxBytes > 0 ? { maxBytes } : {}),
  };
}

/**
 * Worker Deployments, when BLIPFLEET_DEPLOYMENT and BLIPFLEET_BUILD_ID name one; off by default. Chunks and answers end
 * on the version that they started on; a job takes the newest at continue-as-new.
 */
function versioningSettings(environment: Environment): Versioning | undefined {
  const { BLIPFLEET_DEPLOYMENT: deploymentName, BLIPFLEET_BUILD_ID: buildId } = environment;
  if (!deploymentName || !buildId) return undefined;
  return {
    version: { deploymentName, buildId },
    useWorkerVersioning: true,
    defaultVersioningBehavior: "PINNED",
  };
}

export function adapterName({ device, description }: Pick<AdapterReport, "device" | "description">): string {
  return [device, description].filter((part) => part !== "").join(", ") || "unknown adapter";
}

function logModel(
  log: Logger,
  { card, memory, rowBytes }: { readonly card: CheckpointCard } & Partial<Planned>,
  stages: readonly Stage[],
): void {
  const { ref: model, digest, dtype, settings } = card;
  const queues = stages.map((stage) => stageQueue(stage, card));
  const about = { model, digest, dtype, ...(settings && { settings }), queues };
  log.info({ ...about, ...(memory && { weightBytes: memory, rowBytes }) }, "model loaded");
}

function announce(log: Logger, address: string, health: Health | null, workers: readonly Worker[]): void {
  log.info(
    {
      temporal: address,
      ...(health === null ? {} : { metrics: `http://127.0.0.1:${health.port}/metrics` }),
      queues: workers.length,
    },
    "ready",
  );
}
