// How set-up talks and runs things: a line before every action, commands with their output kept for the error.

import { spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { hostname } from "node:os";
import { delimiter, dirname, join } from "node:path";

/** A piece that cannot be had; the message is the one sentence that the user reads. */
export class SetupError extends Error {
  name = "SetupError";
}

let quiet = false;

/** @param {boolean} value true: only actions that change something are told, not what was found in order. */
export function setQuiet(value) {
  quiet = value;
}

/** What is about to be done. */
export function say(line) {
  process.stderr.write(`setup: ${line}\n`);
}

/** What was found in order. */
export function found(line) {
  if (!quiet) say(line);
}

/**
 * Run a program to its end; never through a shell.
 * @param {{ env?: Record<string, string>, cwd?: string, seconds?: number, input?: Buffer }} options
 * @returns {Promise<{ status: number, stdout: string, stderr: string }>} status -1: not started, or out of time
 */
export function run(command, args, options = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: [options.input ? "pipe" : "ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    let late = false;
    const timer = setTimeout(
      () => {
        late = true;
        child.kill("SIGKILL");
      },
      (options.seconds ?? 600) * 1000,
    );
    child.stdout.on("data", (data) => {
      stdout += data;
    });
    child.stderr.on("data", (data) => {
      stderr += data;
    });
    child.on("error", (error) => {
      clearTimeout(timer);
      resolve({ status: -1, stdout, stderr: String(error.message) });
    });
    child.on("close", (status) => {
      clearTimeout(timer);
      resolve({ status: late ? -1 : (status ?? -1), stdout, stderr: late ? `${stderr}\nout of time` : stderr });
    });
    if (options.input) {
      child.stdin.on("error", () => {}); // the child's own exit status tells what went wrong
      child.stdin.end(options.input);
    }
  });
}

/** The last line with something in it: what a failing program has to say for itself. */
export function lastLine(text) {
  return text.trim().split("\n").at(-1)?.trim() || "no message";
}

/** Full path of a program on PATH (or in `folders` first), else null. */
export function findProgram(name, folders = []) {
  for (const folder of [...folders, ...(process.env.PATH ?? "").split(delimiter)]) {
    if (folder === "") continue;
    const path = join(folder, process.platform === "win32" ? `${name}.exe` : name);
    if (existsSync(path) && statSync(path).isFile()) return path;
  }
  return null;
}

/** How to run something as root without asking: [] as root, ["sudo", "-n"] where that works, else null. */
export async function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  const sudo = await run("sudo", ["-n", "true"], { seconds: 5 });
  return sudo.status === 0 ? ["sudo", "-n"] : null;
}

/** How long another set-up may hold the lock from another host before it is taken for dead; builds take minutes. */
const foreignLockMinutes = 30;

/** Whether the process that a lock names is gone. @param text what the lock file says */
function isGone(text, modified) {
  const [host, pid] = text.split(" ");
  if (!host || !pid) return Date.now() - modified > 5_000; // being written, or cut short
  if (host !== hostname()) return Date.now() - modified > foreignLockMinutes * 60_000;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return error.code === "ESRCH";
  }
}

/** Take a dead holder's lock away. Another process may do the same at the same time, so what is taken is looked at again. */
function passOverDead(path) {
  const dead = `${path}.${process.pid}`;
  try {
    if (!isGone(readFileSync(path, "utf8"), statSync(path).mtimeMs)) return false;
    renameSync(path, dead);
    if (!isGone(readFileSync(dead, "utf8"), statSync(dead).mtimeMs)) linkSync(dead, path); // a new holder's: give it back
    rmSync(dead, { force: true });
    return true;
  } catch {
    rmSync(dead, { force: true });
    return false; // released or taken meanwhile; the next attempt sees
  }
}

/** Run `work` while no other set-up or build of this user does; a holder that died is passed over. */
export async function withLock(path, what, work) {
  mkdirSync(dirname(path), { recursive: true });
  let told = false;
  for (;;) {
    try {
      const file = openSync(path, "wx");
      writeSync(file, `${hostname()} ${process.pid}`);
      closeSync(file);
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      if (passOverDead(path)) continue;
      if (!told) say(`waiting for another ${what} to finish (${path})`);
      told = true;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
  const release = () => rmSync(path, { force: true });
  const interrupted = () => {
    release();
    process.exit(130);
  };
  process.once("SIGINT", interrupted);
  process.once("SIGTERM", interrupted);
  try {
    return await work();
  } finally {
    process.off("SIGINT", interrupted);
    process.off("SIGTERM", interrupted);
    release();
  }
}
