// The real servers, and workers of this process whose stages are fakes.

import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AdapterReport } from "../../src/gpu/adapter.ts";
import { jobFolderUri } from "../../src/jobs/roots.ts";
import type { JobRequest, Stage, Topology } from "../../src/messages/job.ts";
import { defaultGeneration, type Stages } from "../../src/stages.ts";
import { connectJobs, type JobClient } from "../../src/workers/job-client.ts";
import { type NatsServer, startNats } from "../../src/workers/servers/nats.ts";
import { startTemporal, type TemporalServer } from "../../src/workers/servers/temporal.ts";
import { runWorker } from "../../src/workers/worker.ts";
import { workerLog } from "../../src/workers/worker-log.ts";
import { fakeCard } from "./fake-stages.ts";

export interface Stack {
  readonly folder: string;
  readonly temporal: TemporalServer;
  readonly nats: NatsServer;
  readonly environment: Readonly<Record<string, string>>;
  readonly jobs: JobClient;
  /** Start a worker; resolves when it takes work, with what stops it. */
  worker(options: StackWorkerOptions): Promise<StackWorker>;
  /** Stop every worker that still runs. */
  stopWorkers(): Promise<void>;
  stop(): Promise<void>;
}

export interface StackWorkerOptions {
  readonly stages?: readonly Stage[];
  readonly model: Stages;
  readonly jobs?: boolean;
  readonly itemsInFlight?: number;
  readonly fatal?: Promise<Error>;
  readonly exit?: (code: number) => void;
  readonly environment?: Readonly<Record<string, string>>;
}

export interface StackWorker {
  readonly metricsPort: number;
  /** SIGTERM's way out; resolves when it has drained. */
  stop(): Promise<void>;
}

const fakeReport: AdapterReport = {
  vendor: "none",
  architecture: "none",
  device: "fake",
  description: "",
  softwareAdapter: true,
  subgroupMinSize: 1,
  subgroupMaxSize: 1,
  features: [],
  matrices: [],
  limits: {},
  toggles: [],
};

export async function startStack(): Promise<Stack> {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "blipfleet-stack-")));
  const [temporal, nats] = await Promise.all([
    startTemporal({ folder: join(folder, "temporal") }),
    startNats({ storeDir: join(folder, "nats") }),
  ]);
  const environment = {
    TEMPORAL_ADDRESS: temporal.address,
    NATS_URL: nats.url,
    BLIPFLEET_ROOTS: join(folder, "images"),
    BLIPFLEET_JOBS: join(folder, "jobs"),
    BLIPFLEET_CACHE: join(folder, "cache"),
    BLIPFLEET_HEARTBEAT_TIMEOUT: "2",
    BLIPFLEET_SILENT_AFTER: "2",
  };
  mkdirSync(environment.BLIPFLEET_ROOTS);
  const jobs = await connectJobs(environment);
  const stops: (() => Promise<void>)[] = [];
  const stopWorkers = async () => {
    await Promise.all(stops.splice(0).map((stop) => stop()));
  };

  return {
    folder,
    temporal,
    nats,
    environment,
    jobs,
    async worker(options) {
      const stop = new AbortController();
      const model = options.model;
      let ended: Promise<void> = Promise.resolve();
      const stopWorker = async () => {
        stop.abort();
        await ended.catch(() => undefined);
      };
      const metricsPort = await new Promise<number>((resolve, reject) => {
        stops.push(stopWorker);
        ended = runWorker({
          models: [{ ref: "fake", dtype: "f32" }],
          ...(options.stages === undefined ? {} : { stages: options.stages }),
          ...(options.jobs === undefined ? {} : { jobs: options.jobs }),
          ...(options.exit === undefined ? {} : { exit: options.exit }),
          itemsInFlight: options.itemsInFlight ?? 8,
          metricsPort: 0,
          graceSeconds: 10,
          environment: { ...environment, ...options.environment },
          stop: stop.signal,
          log: workerLog(process.env.BLIPFLEET_LOG ?? "silent"),
          openGroup: async () => ({
            report: fakeReport,
            fatal: options.fatal ?? new Promise<Error>(() => {}),
            stats: async () => ({ programs: {}, load: 0, allocatedBytes: 0 }),
            open: async () => ({ ...model, close: async () => {} }),
            close: async () => {},
          }),
          onReady: (ready) => resolve(ready.metricsPort ?? 0),
        });
        ended.catch(reject);
      });
      return { metricsPort, stop: stopWorker };
    },
    stopWorkers,
    async stop() {
      await stopWorkers();
      await jobs.close();
      await Promise.all([temporal.stop(), nats.stop()]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A folder of `count` images below the roots, named 000.jpg …; `contents` gives each its bytes. */
export function writeImages(stack: Stack, name: string, contents: readonly string[]): string {
  const folder = join(stack.environment.BLIPFLEET_ROOTS ?? "", name);
  mkdirSync(folder, { recursive: true });
  contents.forEach((text, i) => {
    writeFileSync(join(folder, `${String(i).padStart(4, "0")}.jpg`), text);
  });
  return folder;
}

export function requestOf(stack: Stack, jobId: string, source: string, more: Partial<JobRequest> = {}): JobRequest {
  const topology: Topology = "fused";
  return {
    jobId,
    source,
    folder: jobFolderUri(jobId, stack.environment),
    chunkSize: 5,
    window: 3,
    task: "caption",
    model: { ref: fakeCard.ref, digest: fakeCard.digest, dtype: fakeCard.dtype },
    topology,
    prompt: null,
    generation: defaultGeneration,
    ...more,
  };
}
