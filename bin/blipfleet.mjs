#!/usr/bin/env node
// The command's launcher: finds the driver and the servers that set-up recorded, then runs the built command line.
// No dependencies; says one sentence when something it needs is not there.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { readEnvironment, variablesFor } from "./environment.mjs";

const oldestNode = [20, 11];

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
  const args = [...process.execArgv, fileURLToPath(import.meta.url), ...process.argv.slice(2)];
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => {}); // the child gets them and decides
  const child = spawnSync(process.execPath, args, { stdio: "inherit", env: { ...process.env, ...variables } });
  if (child.error) refuse(`expected to start ${process.execPath}, got ${child.error.message}`);
  process.exit(child.status ?? 128 + (constants.signals[child.signal] ?? 0));
}
Object.assign(process.env, variables);
await import(main.href);
