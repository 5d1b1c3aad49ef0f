// A server as a supervised child process: own log file, own process group, no orphan when we die.
//
// 1. The child leads its own process group, so that Ctrl-C in a terminal reaches only us and we stop things in order.
// 2. A guard (one line of sh) holds the read end of a pipe whose write end only we have. When we end in whatever way,
//    SIGKILL included, the pipe closes and the guard ends the child.
// 3. stop() sends SIGTERM, then SIGKILL after a grace period, and returns when the child is gone.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { ServerError } from "./errors.ts";

/** Milliseconds between SIGTERM and SIGKILL. nats-server ends in milliseconds, temporal in about a second. */
const defaultGrace = 8000;

/** Waits for end of file on stdin, then ends process $1: SIGTERM, and SIGKILL 8 s later. */
const guardScript =
  'cat >/dev/null; kill -TERM "$1" 2>/dev/null; n=0; while kill -0 "$1" 2>/dev/null && [ $n -lt 80 ]; do sleep 0.1; n=$((n+1)); done; kill -KILL "$1" 2>/dev/null';

export interface ChildOptions {
  /** For messages, e.g. "nats-server". */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** stdout and stderr are appended here. */
  readonly logFile: string;
  /** Milliseconds that stop() waits between SIGTERM and SIGKILL. Default 8000. */
  readonly graceMs?: number;
}

export interface Child {
  readonly pid: number;
  readonly logFile: string;
  /** Resolves with a sentence when the process ends, wanted or not. Waiting for it alone keeps no process alive. */
  readonly ended: Promise<string>;
  /** True until the process has ended. */
  running(): boolean;
  /** End it and wait until it is gone. May be called more than once. */
  stop(): Promise<void>;
  /** SIGKILL at once, as a crash would be; returns when it is gone. */
  kill(): Promise<void>;
}

/**
 * Start a server process.
 * @throws ServerError when it cannot be started at all.
 */
export async function startChild(options: ChildOptions): Promise<Child> {
  mkdirSync(dirname(options.logFile), { recursive: true });
  const log = openSync(options.logFile, "a");
  const child = spawn(options.command, options.args, {
    stdio: ["ignore", log, log],
    detached: true,
    env: { ...process.env, ...options.environment },
  });
  closeSync(log);
  const exited = once(child, "exit");
  try {
    await once(child, "spawn");
  } catch (error) {
    exited.catch(() => undefined);
    throw new ServerError(`${options.name}: expected to start ${options.command}, got ${String(error)}`, {
      cause: error,
    });
  }
  const pid = child.pid ?? 0;
  const guard = startGuard(pid);
  let running = true;
  const ended = exited.then(([code, signal]) => {
    running = false;
    guard.kill("SIGKILL");
    return `${options.name} (pid ${pid}) ended with ${signal ? `signal ${signal}` : `status ${code}`}`;
  });
  const end = async (signal: NodeJS.Signals) => {
    child.ref(); // while we wait for it
    if (running) child.kill(signal);
    const gone = await Promise.race([
      ended.then(() => true),
      delay(options.graceMs ?? defaultGrace, false, { ref: false }),
    ]);
    if (!gone) child.kill("SIGKILL");
    await ended;
  };
  // The child must not keep an otherwise finished parent alive; the guard ends it with us.
  child.unref();
  return {
    pid,
    logFile: options.logFile,
    ended,
    running: () => running,
    stop: () => end("SIGTERM"),
    kill: () => end("SIGKILL"),
  };
}

function startGuard(pid: number): ChildProcess {
  const guard = spawn("/bin/sh", ["-c", guardScript, "blipfleet-guard", String(pid)], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  guard.on("error", () => undefined); // without sh there is no guard; stop() still works
  guard.stdin?.on("error", () => undefined);
  guard.unref();
  if (guard.stdin !== null && "unref" in guard.stdin && typeof guard.stdin.unref === "function") guard.stdin.unref();
  return guard;
}

/**
 * Ask `ready` until it answers true, the child ends, or the time is over. The child is stopped on failure.
 * @throws ServerError with the last lines of the log, each with the server's name before it.
 */
export async function waitUntilReady(
  child: Child,
  name: string,
  timeoutMs: number,
  ready: () => Promise<boolean>,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  let problem = "";
  while (Date.now() < deadline) {
    if (!child.running()) {
      throw new ServerError(`${name}: expected a running server, got: ${await child.ended}\n${logTail(child, name)}`);
    }
    try {
      if (await ready()) return;
    } catch (error) {
      problem = `; last answer: ${error instanceof Error ? error.message : String(error)}`;
    }
    await delay(50);
  }
  await child.stop();
  throw new ServerError(
    `${name}: expected to be ready within ${timeoutMs} ms, got no readiness${problem}\n${logTail(child, name)}`,
  );
}

/** The last 15 lines of the child's log, each starting with `[name]`. */
export function logTail(child: Pick<Child, "logFile">, name: string): string {
  try {
    const lines = readFileSync(child.logFile, "utf8").trimEnd().split("\n").slice(-15);
    return lines.map((line) => `[${name}] ${line}`).join("\n");
  } catch {
    return `[${name}] no log at ${child.logFile}`;
  }
}
