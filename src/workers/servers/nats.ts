// nats-server with JetStream as a supervised child.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import type { Environment } from "../../jobs/roots.ts";
import { connectNats } from "../../messages/connect.ts";
import { findServer } from "./binaries.ts";
import { type Child, startChild, waitUntilReady } from "./child.ts";
import { ServerError } from "./errors.ts";
import { lockFolder } from "./folder-lock.ts";

export interface NatsServerOptions {
  /** Holds the server's configuration, log and JetStream's files. */
  readonly storeDir: string;
  /** Default: a free one, kept over restarts. */
  readonly port?: number;
  /** As nats-server writes sizes. Default "8MB". */
  readonly maxPayload?: string;
  /** Use this configuration file instead of a written one; it decides max_payload, authorization and store_dir. */
  readonly configFile?: string;
  /** More lines for the written configuration, e.g. authorization. */
  readonly configLines?: readonly string[];
  /** Default: nats.log in storeDir. */
  readonly logFile?: string;
  readonly environment?: Environment;
  /** Settings with which the readiness check connects, when the server wants credentials. */
  readonly credentials?: Environment;
}

export interface NatsServer {
  readonly port: number;
  /** nats://127.0.0.1:port */
  readonly url: string;
  readonly logFile: string;
  pid(): number;
  /** Resolves with a sentence when the current process ends, wanted or not. */
  ended(): Promise<string>;
  /** Stop, with `empty` delete every stream, and start again on the same port. */
  restart(options?: { readonly empty?: boolean }): Promise<void>;
  stop(): Promise<void>;
  /** SIGKILL, as a crash would be. */
  kill(): Promise<void>;
}

/** Milliseconds; a cold start on a busy two-core machine takes under two seconds. */
const readyTimeout = 20_000;

/**
 * Start nats-server with JetStream on the loopback interface and wait until JetStream answers.
 * @throws ServerMissingError, ServerError
 */
export async function startNats(options: NatsServerOptions): Promise<NatsServer> {
  const environment = options.environment ?? process.env;
  const command = findServer("nats-server", environment);
  const unlock = lockFolder(options.storeDir, "nats-server");
  let port = options.port;
  let child: Child;

  const launch = async (): Promise<Child> => {
    const jetstreamFolder = join(options.storeDir, "jetstream");
    const portsFolder = join(options.storeDir, "ports");
    mkdirSync(jetstreamFolder, { recursive: true });
    mkdirSync(portsFolder, { recursive: true });
    const started = await startChild({
      name: "nats-server",
      command,
      args: [
        ...["--config", options.configFile ?? writeConfig(options, jetstreamFolder)],
        ...["--addr", "127.0.0.1", "--port", String(port ?? -1)],
        ...["--ports_file_dir", portsFolder],
      ],
      logFile: options.logFile ?? join(options.storeDir, "nats.log"),
    });
    await waitUntilReady(started, "nats-server", readyTimeout, async () => {
      port ??= readPort(join(portsFolder, `nats-server_${started.pid}.ports`));
      const connection = await connectNats(
        { ...options.credentials, NATS_URL: `nats://127.0.0.1:${port}` },
        { name: "blipfleet readiness", timeoutMs: 2000 },
      );
      try {
        await jetstreamManager(connection, { timeout: 2000 });
        return true;
      } finally {
        await connection.close();
      }
    });
    return started;
  };

  try {
    child = await launch();
  } catch (error) {
    unlock();
    throw error;
  }
  const knownPort = port ?? 0;
  return {
    port: knownPort,
    url: `nats://127.0.0.1:${knownPort}`,
    logFile: child.logFile,
    pid: () => child.pid,
    ended: () => child.ended,
    async restart({ empty = false } = {}) {
      if (empty && options.configFile !== undefined) {
        throw new ServerError("nats-server: expected a written configuration to restart empty, got a configFile");
      }
      await child.stop();
      if (empty) rmSync(join(options.storeDir, "jetstream"), { recursive: true, force: true });
      child = await launch();
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

function writeConfig(options: NatsServerOptions, jetstreamFolder: string): string {
  const file = join(options.storeDir, "nats.conf");
  const lines = [
    "server_name: blipfleet",
    `max_payload: ${options.maxPayload ?? "8MB"}`,
    `jetstream { store_dir: ${JSON.stringify(jetstreamFolder)} }`,
    ...(options.configLines ?? []),
  ];
  writeFileSync(file, `${lines.join("\n")}\n`);
  return file;
}

/** nats-server writes {"nats": ["nats://127.0.0.1:41234"], …} once it listens. */
function readPort(file: string): number {
  const parsed: unknown = JSON.parse(readFileSync(file, "utf8"));
  const urls = typeof parsed === "object" && parsed !== null && "nats" in parsed ? parsed.nats : undefined;
  const first: unknown = Array.isArray(urls) ? urls[0] : undefined;
  const port = typeof first === "string" ? Number(new URL(first).port) : 0;
  if (port > 0) return port;
  throw new ServerError(`nats-server: expected its port in ${file}, got none`);
}
