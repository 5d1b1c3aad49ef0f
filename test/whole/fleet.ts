// A whole fleet on this machine: real servers, worker processes, and the command line as a user calls it.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { packageRoot } from "../../src/gpu/package-root.ts";
import type { JobProgress, Stage } from "../../src/messages/job.ts";
import { connectJobs, type JobClient } from "../../src/workers/job-client.ts";
import { type NatsServer, startNats } from "../../src/workers/servers/nats.ts";
import { freePort, startTemporal, type TemporalServer } from "../../src/workers/servers/temporal.ts";

/** What a command printed and how it ended. */
export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface WorkerOptions {
  readonly stages?: readonly Stage[];
  readonly model: string;
  readonly dtype?: "f32" | "f16";
  readonly args?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

/** Milliseconds; a worker loads, tests its kernels and connects, perhaps three at once on two cores. */
const readyTimeout = 120_000;

export class Fleet {
  readonly folder: string;
  readonly nats: NatsServer;
  readonly temporal: TemporalServer;
  /** What the processes of this fleet have in their environment. */
  readonly environment: Readonly<Record<string, string>>;
  readonly #workers = new Set<WorkerProcess>();
  #jobs: JobClient | undefined;

  private constructor(folder: string, temporal: TemporalServer, nats: NatsServer, environment: Record<string, string>) {
    this.folder = folder;
    this.temporal = temporal;
    this.nats = nats;
    this.environment = environment;
  }

  /** Start the servers. Images are read from `images`; `environment` is added to that of every process. */
  static async open(images: string, environment: Record<string, string> = {}): Promise<Fleet> {
    const folder = await mkdtemp(join(tmpdir(), "blipfleet-fleet-"));
    await mkdir(join(folder, "jobs"));
    const [temporal, nats] = await Promise.all([
      startTemporal({ folder: join(folder, "temporal") }),
      startNats({ storeDir: join(folder, "nats") }),
    ]);
    return new Fleet(folder, temporal, nats, {
      TEMPORAL_ADDRESS: temporal.address,
      TEMPORAL_NAMESPACE: temporal.namespace,
      NATS_URL: nats.url,
      BLIPFLEET_ROOTS: images,
      BLIPFLEET_JOBS: join(folder, "jobs"),
      ...environment,
    });
  }

  /** Run `blipfleet …` against this fleet. */
  run(args: readonly string[]): Promise<Ran> {
    return runCommand(args, this.environment);
  }

  /** Run `blipfleet …`, which must succeed. @returns stdout */
  async must(args: readonly string[]): Promise<string> {
    const ran = await this.run(args);
    if (ran.status === 0) return ran.stdout;
    throw new Error(`blipfleet ${args.join(" ")}: expected status 0, got ${ran.status}\n${ran.stdout}${ran.stderr}`);
  }

  /** Start a worker process and wait until it takes work. */
  async worker(options: WorkerOptions): Promise<WorkerProcess> {
    const worker = new WorkerProcess(options, this.environment, await freePort());
    this.#workers.add(worker);
    await worker.ready();
    return worker;
  }

  /** How a job stands; undefined while nobody can say. Asked directly: a command a look would take the cores. */
  async progress(jobId: string): Promise<JobProgress | undefined> {
    this.#jobs ??= await connectJobs(this.environment);
    return this.#jobs.status(jobId).then(
      ({ progress }) => progress,
      () => undefined,
    );
  }

  /** Wait until the job's progress satisfies `condition`. @throws after `seconds` */
  async until(
    jobId: string,
    what: string,
    condition: (progress: JobProgress) => boolean,
    seconds = 120,
  ): Promise<JobProgress> {
    const deadline = Date.now() + seconds * 1000;
    let last: JobProgress | undefined;
    while (Date.now() < deadline) {
      last = await this.progress(jobId);
      if (last !== undefined && condition(last)) return last;
      await delay(50);
    }
    throw new Error(`${jobId}: expected ${what} within ${seconds} s, got ${JSON.stringify(last)}\n${this.logs()}`);
  }

  async killWorkers(): Promise<void> {
    await Promise.all([...this.#workers].map((worker) => worker.kill()));
    this.#workers.clear();
  }

  /** The end of every worker's log. */
  logs(): string {
    return [...this.#workers].map((worker) => `--- ${worker.name}\n${worker.log.slice(-4000)}`).join("\n");
  }

  async close(): Promise<void> {
    await this.#jobs?.close();
    await this.killWorkers();
    await Promise.all([this.temporal.stop(), this.nats.stop()]);
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** One `blipfleet worker`. */
export class WorkerProcess {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #port: number;
  readonly #ended: Promise<number | null>;
  log = "";

  constructor(options: WorkerOptions, environment: Readonly<Record<string, string>>, port: number) {
    const { stages = ["encode", "query", "generate"], model, dtype = "f32", args = [] } = options;
    this.name = stages.join(",");
    this.#port = port;
    const command = ["worker", "--model", model, "--dtype", dtype, "--stages", this.name, "--metrics-port", `${port}`];
    this.#child = spawn(process.execPath, [launcher(), ...command, ...args], {
      env: { ...process.env, ...environment, ...options.environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on("data", (bytes) => {
        this.log += bytes;
      });
    }
    this.#ended = new Promise((resolve) => this.#child.once("exit", (status) => resolve(status)));
  }

  async ready(): Promise<void> {
    const deadline = Date.now() + readyTimeout;
    while (Date.now() < deadline) {
      if (this.#child.exitCode !== null) break;
      const response = await fetch(`http://127.0.0.1:${this.#port}/readyz`).catch(() => undefined);
      if (response?.ok) return;
      await delay(50);
    }
    throw new Error(`worker ${this.name}: expected to be ready, got\n${this.log}`);
  }

  /** One metric's value with these labels; 0 before it was counted. */
  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    const response = await fetch(`http://127.0.0.1:${this.#port}/metrics`);
    const wanted = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
    const lines = (await response.text()).split("\n").filter((line) => /^\w+/.exec(line)?.[0] === name);
    const line = lines.find((each) => wanted.every((label) => each.includes(label)));
    return line === undefined ? 0 : Number(line.slice(line.lastIndexOf(" ") + 1));
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** SIGKILL and wait for the end. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }

  /** SIGTERM and wait for the end. @returns exit status */
  async stop(): Promise<number | null> {
    this.#child.kill("SIGTERM");
    return this.#ended;
  }
}

function launcher(): string {
  return join(packageRoot, "bin", "blipfleet.mjs");
}

/** Run `blipfleet …` with these variables added. */
export function runCommand(args: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [launcher(), ...args], {
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (bytes) => {
      stdout += bytes;
    });
    child.stderr.on("data", (bytes) => {
      stderr += bytes;
    });
    child.once("error", reject);
    child.once("close", (status) => resolve({ status, stdout, stderr }));
  });
}
