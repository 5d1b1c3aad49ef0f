#!/usr/bin/env node
// The command's launcher: finds the driver and the servers that set-up recorded, then runs the built command line.
// No dependencies; says one sentence when something it needs is not there.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { readEnvironment, variablesFor } from "./environment.mjs";

const oldestNode = [20, 11];
/** Names the launcher to the child that it started with other variables. */
const startedBy = "BLIPFLEET_LAUNCHER";

/** @returns {never} wrong use, or not set up */
function refuse(sentence) {
  process.stderr.write(`blipfleet: ${sentence}\n`);
  process.exit(2);
}

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < oldestNode[0] || (major === oldestNode[0] && minor < oldestNode[1])) {
  refuse(`expected Node ${oldestNode.join(".")} or newer, got ${process.versions.node}`);
}
const main = new URL("../dist/src/cli/main.js", import.meta.url);
if (!existsSync(main)) refuse("expected a built package, found no dist/; run `npm run setup` first");

const { variables, problem } = variablesFor(readEnvironment());
if (problem) refuse(problem);

const loaderPath = variables.LD_LIBRARY_PATH;
if (loaderPath !== undefined && loaderPath !== process.env.LD_LIBRARY_PATH) {
  // the dynamic linker reads this one only when a process starts
  runAgain({ ...process.env, ...variables });
} else {
  endWithLauncher();
  Object.assign(process.env, variables);
  await import(main.href);
}

/** Start this launcher as a child with other variables, hand signals on, and end as it ends. */
function runAgain(env) {
  const args = [...process.execArgv, fileURLToPath(import.meta.url), ...process.argv.slice(2)];
  // the channel carries nothing: it closes when this process ends, however that happens
  const stdio = ["inherit", "inherit", "inherit", "ipc"];
  const child = spawn(process.execPath, args, { stdio, env: { ...env, [startedBy]: String(process.pid) } });
  child.on("error", (error) => refuse(`expected to start ${process.execPath}, got ${error.message}`));
  child.on("exit", (status, signal) => process.exit(status ?? 128 + (constants.signals[signal] ?? 0)));
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  process.on("SIGINT", () => {
    // Ctrl-C in a terminal reaches the child by itself, and a second one would end it at once
    if (!process.stdin.isTTY) child.kill("SIGINT");
  });
}

/** A launcher that is killed cannot hand that on: its child ends by itself then. */
function endWithLauncher() {
  const launcher = process.env[startedBy];
  delete process.env[startedBy];
  if (launcher !== String(process.ppid) || !process.channel) return;
  process.once("disconnect", () => process.kill(process.pid, "SIGKILL"));
  process.channel.unref();
}
