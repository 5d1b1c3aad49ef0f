// npm run bench:gpu: builds where there is a compiler, then runs dist/bench/gpu.js under what set-up found, if it has run:
// on a machine with a GPU's own driver nothing else is needed.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readEnvironment, variablesFor } from "../bin/environment.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const bench = join(root, "dist", "bench", "gpu.js");

if (existsSync(join(root, "node_modules", "typescript"))) {
  const { build } = await import("./build.mjs");
  await build({ tell: (line) => process.stderr.write(`bench:gpu: ${line}\n`) });
}
if (!existsSync(bench)) {
  process.stderr.write("bench:gpu: expected a built package, found no dist/bench/gpu.js; run `npm install` first\n");
  process.exit(2);
}
const { variables, problem } = variablesFor(readEnvironment());
if (problem) {
  process.stderr.write(`bench:gpu: ${problem}\n`);
  process.exit(2);
}
const env = { ...process.env, ...variables };
const child = spawn(process.execPath, [bench, ...process.argv.slice(2)], { stdio: "inherit", cwd: root, env });
child.on("exit", (status) => process.exit(status ?? 1));
