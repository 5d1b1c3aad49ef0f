// The Temporal development server (SQLite) as a supervised child.

import { mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { dirname } from "node:path";
import { Connection } from "@temporalio/client";
import type { Environment } from "../../jobs/roots.ts";
import { findServer } from "./binaries.ts";
import { type Child, startChild, waitUntilReady } from "./child.ts";
import { ServerError } from "./errors.ts";
import { lockFolder } from "./folder-lock.ts";

export interface TemporalServerOptions {
  /** Holds the log, and the owner file that keeps two servers from one database. */
  readonly folder: string;
  /** Default: a free one, kept over restarts. */
  readonly port?: number;
  /** Web UI: a port, or "free" to choose one. Default: no UI. */
  readonly uiPort?: number | "free";
  /** SQLite file. Default: in memory, lost at stop. */
  readonly dbFile?: string;
  /** Default "default". */
  readonly namespace?: string;
  /** Default: temporal.log in folder. */
  readonly logFile?: string;
  readonly environment?: Environment;
}

export interface TemporalServer {
  /** host:port for clients and workers. */
  readonly address: string;
  readonly namespace: string;
  /** Undefined without a UI. */
  readonly uiUrl: string | undefined;
  readonly logFile: string;
  pid(): number;
  /** Resolves with a sentence when the current process ends, wanted or not. */
  ended(): Promise<string>;
  /** Stop and start again on the same ports; histories survive only with a dbFile. */
  restart(): Promise<void>;
  stop(): Promise<void>;
  /** SIGKILL, as a crash would be. */
  kill(): Promise<void>;
}

/** Search attributes of the workflow `job`; keywords match whole, numbers can be compared. */
export const searchAttributes = {
  BlipfleetDone: "Int",
  BlipfleetFailed: "Int",
  BlipfleetModel: "Keyword",
  BlipfleetDataset: "Keyword",
} as const;

/** Priority and fairness keys act only with these; see also deploy/temporal-dynamic-config.yaml. */
export const matchingSettings = {
  "matching.useNewMatcher": true,
  "matching.enableFairness": true,
} as const;

/** Milliseconds; a first start creates the database and takes about 3 s on a busy two-core machine. */
const readyTimeout = 60_000;

/**
 * Start `temporal server start-dev` on the loopback interface and wait until its namespace and search attributes are
 * there.
 * @throws ServerMissingError, ServerError
 */
export async function startTemporal(options: TemporalServerOptions): Promise<TemporalServer> {
  const command = findServer("temporal", options.environment ?? process.env);
  const namespace = options.namespace ?? "default";
  const unlock = lockFolder(options.folder, "temporal");
  let ports: Ports;
  let child: Child;

  try {
    ports = await choosePorts(options);
    child = await launch(command, options, namespace, ports);
  } catch (error) {
    unlock();
    throw error;
  }
  return {
    address: `127.0.0.1:${ports.port}`,
    namespace,
    uiUrl: ports.uiPort === undefined ? undefined : `http://127.0.0.1:${ports.uiPort}`,
    logFile: child.logFile,
    pid: () => child.pid,
    ended: () => child.ended,
    async restart() {
      await child.stop();
      child = await launch(command, options, namespace, ports);
    },
    async stop() {
      await child.stop();
      unlock();
    },
    async kill() {
      await child.kill();
    },
  };
}

interface Ports {
  readonly port: number;
  readonly uiPort: number | undefined;
}

async function choosePorts(options: TemporalServerOptions): Promise<Ports> {
  const uiPort = options.uiPort === "free" ? await freePort() : options.uiPort;
  return { port: options.port ?? (await freePort()), uiPort };
}

async function launch(
  command: string,
  options: TemporalServerOptions,
  namespace: string,
  { port, uiPort }: Ports,
): Promise<Child> {
  if (options.dbFile !== undefined) mkdirSync(dirname(options.dbFile), { recursive: true });
  const child = await startChild({
    name: "temporal",
    command,
    args: [
      ...["server", "start-dev", "--ip", "127.0.0.1", "--port", String(port), "--namespace", namespace],
      ...(uiPort === undefined ? ["--headless"] : ["--ui-port", String(uiPort)]),
      ...(options.dbFile === undefined ? [] : ["--db-filename", options.dbFile]),
      ...["--log-level", "warn", "--log-format", "json"],
      ...Object.entries(matchingSettings).flatMap(([key, value]) => ["--dynamic-config-value", `${key}=${value}`]),
      ...Object.entries(searchAttributes).flatMap(([name, type]) => ["--search-attribute", `${name}=${type}`]),
    ],
    logFile: options.logFile ?? `${options.folder}/temporal.log`,
  });
  await waitUntilReady(child, "temporal", readyTimeout, () => isReady(`127.0.0.1:${port}`, namespace));
  return child;
}

async function isReady(address: string, namespace: string): Promise<boolean> {
  const connection = await Connection.connect({ address, connectTimeout: 2000 });
  try {
    const deadline = Date.now() + 5000;
    return await connection.withDeadline(deadline, async () => {
      await connection.workflowService.describeNamespace({ namespace });
      const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace });
      return Object.keys(searchAttributes).every((name) => name in (customAttributes ?? {}));
    });
  } finally {
    await connection.close();
  }
}

/** A port of the loopback interface that was free a moment ago. */
export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => {
        if (typeof address === "object" && address !== null) resolve(address.port);
        else reject(new ServerError("free port: expected an address of a listening socket, got none"));
      });
    });
  });
}
