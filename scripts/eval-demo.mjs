// npm run eval:demo: the evaluation of the demo models (evaluation/main.ts), with the driver that set-up found.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { readEnvironment, variablesFor } from "../bin/environment.mjs";

const main = fileURLToPath(new URL("../dist/evaluation/main.js", import.meta.url));
const { variables, problem } = variablesFor(readEnvironment());
const missing = existsSync(main) ? null : "expected a built clone, found no dist/evaluation; run `npm run setup` first";
if (problem ?? missing) {
  process.stderr.write(`eval:demo: ${problem ?? missing}\n`);
  process.exitCode = 2;
} else {
  const env = { ...process.env, ...variables };
  const child = spawn(process.execPath, [main, ...process.argv.slice(2)], { stdio: "inherit", env });
  child.on("exit", (status, signal) => process.exit(status ?? 128 + (constants.signals[signal] ?? 0)));
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  process.on("SIGINT", () => {
    // Ctrl-C in a terminal reaches the child by itself
    if (!process.stdin.isTTY) child.kill("SIGINT");
  });
}
