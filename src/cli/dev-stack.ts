// Temporal, NATS and one worker as supervised children of this process: what `dev` and `demo` start.

import { mkdirSync, realpathSync } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { RunSettings } from "../stages.ts";
import { type Child, logTail, startChild, waitUntilReady } from "../workers/servers/child.ts";
import { startNats } from "../workers/servers/nats.ts";
import { freePort, startTemporal } from "../workers/servers/temporal.ts";
import { claimPort } from "./claimed-ports.ts";
import { type DtypeChoice, settingsAsFlags } from "./model-options.ts";
import { fromHere } from "./output.ts";

export interface DevStackOptions {
  /** Holds databases, logs and jobs. */
  readonly folder: string;
  /** What the worker serves. */
  readonly models: readonly string[];
  readonly dtype: DtypeChoice;
  /** How the worker runs them. Default: as the checkpoints are. */
  readonly settings?: RunSettings;
  /** Folders that jobs may read. */
  readonly roots: readonly string[];
  /**
   * A stack to be found and to come back: on the usual ports where they are free, Temporal's histories in a file. Else
   * any free ports, so that many can start at the same moment.
   */
  readonly durable: boolean;
  /** Told what is started, and what was started again. */
  readonly tell: (line: string) => void;
}

export interface DevStack {
  /** For clients and workers of this stack. */
  readonly environment: Readonly<Record<string, string>>;
  readonly uiUrl: string | undefined;
  readonly metricsUrl: string;
  /** Resolves with a sentence when something ended that cannot be started again. */
  readonly broken: Promise<string>;
  stop(): Promise<void>;
}

/** The ports that Temporal's and NATS' own tools expect; another where one is taken. */
const usualPorts = { temporal: 7233, ui: 8233, nats: 4222, metrics: 9464 };

/** Milliseconds: loading a large checkpoint from disk and compiling its kernels takes minutes. */
const workerReady = 600_000;
/** Milliseconds between two starts of a worker that keeps ending. */
const restartPause = 2_000;
/** A worker that ends so often in a row, never ready, will not become ready. */
const mostRestarts = 5;

/**
 * Start everything and wait until the worker takes work.
 * @throws ServerMissingError, ServerError with the last lines of the log of what did not start
 */
export async function startDevStack(options: DevStackOptions): Promise<DevStack> {
  const { tell, durable } = options;
  const portFor = (usual: number) => (durable ? usualPort(usual, stops) : freePort());
  mkdirSync(options.folder, { recursive: true });
  const folder = realpathSync(options.folder);
  const stops: (() => Promise<void>)[] = [];
  const stop = async () => {
    for (const each of stops.splice(0).reverse()) await each();
  };
  try {
    tell("starting nats-server");
    const nats = await startNats({ storeDir: join(folder, "nats"), port: await portFor(usualPorts.nats) });
    stops.push(() => nats.stop());
    tell("starting Temporal");
    const temporal = await startTemporal({
      folder: join(folder, "temporal"),
      port: await portFor(usualPorts.temporal),
      uiPort: await portFor(usualPorts.ui),
      ...(durable ? { dbFile: join(folder, "temporal", "temporal.db") } : {}),
    });
    stops.push(() => temporal.stop());
    const environment = {
      TEMPORAL_ADDRESS: temporal.address,
      TEMPORAL_NAMESPACE: temporal.namespace,
      NATS_URL: nats.url,
      BLIPFLEET_JOBS: join(folder, "jobs"),
      BLIPFLEET_ROOTS: options.roots.map((root) => resolve(root)).join(":"),
    };
    tell(`starting a worker for ${options.models.map(fromHere).join(" and ")}`);
    const metricsPort = await portFor(usualPorts.metrics);
    const worker = await superviseWorker(options, folder, environment, metricsPort);
    stops.push(worker.stop);
    const servers = [nats, temporal].map(async (server) => `${await server.ended()}; see ${server.logFile}`);
    return {
      environment,
      uiUrl: temporal.uiUrl,
      metricsUrl: `http://127.0.0.1:${metricsPort}/metrics`,
      broken: Promise.race([...servers, worker.broken]),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** One worker, started again when it ends by itself. */
async function superviseWorker(
  options: DevStackOptions,
  folder: string,
  environment: Readonly<Record<string, string>>,
  metricsPort: number,
): Promise<{ readonly broken: Promise<string>; stop(): Promise<void> }> {
  let stopping = false;
  let child: Child;
  const start = async () => {
    const models = options.models.flatMap((model) => ["--model", model]);
    const args = ["worker", ...models, "--dtype", options.dtype, ...settingsAsFlags(options.settings)];
    args.push("--metrics-port", String(metricsPort));
    child = await startChild({
      name: "worker",
      command: process.execPath,
      args: [fileURLToPath(new URL("./main.js", import.meta.url)), ...args],
      environment: { ...process.env, ...environment },
      logFile: join(folder, "worker.log"),
    });
    await waitUntilReady(child, "worker", workerReady, async () => {
      const response = await fetch(`http://127.0.0.1:${metricsPort}/readyz`, { signal: AbortSignal.timeout(2000) });
      return response.ok;
    });
  };
  const supervise = async (): Promise<string> => {
    for (let failures = 0; ; ) {
      const end = await child.ended;
      if (stopping) return end;
      options.tell(`${end}; starting it again\n${logTail(child, "worker")}`);
      await delay(restartPause);
      if (stopping) return end;
      try {
        await start();
        failures = 0;
      } catch (error) {
        failures += 1;
        if (failures >= mostRestarts) return error instanceof Error ? error.message : String(error);
      }
    }
  };
  await start();
  return {
    broken: supervise(),
    async stop() {
      stopping = true;
      await child.stop();
    },
  };
}

/** `port` if nothing listens there and no other stack is about to; else a free one. */
async function usualPort(port: number, stops: (() => Promise<void>)[]): Promise<number> {
  const release = claimPort(port);
  if (release === null) return freePort();
  stops.push(async () => release());
  const free = await new Promise<boolean>((done) => {
    const probe = createServer();
    probe.once("error", () => done(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => done(true)));
  });
  return free ? port : freePort();
}
