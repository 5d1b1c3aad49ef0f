// The models' tests on adapters of all kinds, one after the other: each must give transformers' token ids. Prints a table.
//
// test/adapters.json lists them: a driver, variables for it, and what the device is to have less than its adapter. Vectors of
// other widths are lavapipe's own option; the kernels for GPUs run on a CPU driver as well, if slowly, in the workgroups of 32
// and 64 that GPUs get.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { cacheFolder, readEnvironment, variablesFor } from "../bin/environment.mjs";
import { build } from "./build.mjs";
import { SetupError } from "./setup/steps.mjs";

const usage = `usage: npm run test:adapters [-- OPTIONS]
  --adapter PATTERN   only adapters of test/adapters.json whose name contains PATTERN (may be repeated)
  --only PATTERN      only test files of test/models/ whose name contains PATTERN (may be repeated)
`;

const root = fileURLToPath(new URL("..", import.meta.url));
/** Files that compare ids, or vectors and logits, with transformers'. */
const files = /^(small-.*|blip.*|instructblip.*|clip|video|rank-answers|settings|sampling)\.test\.js$/;
const notIds = /-config\.test\.js$/;
/** Seconds for one file: the slowest takes two minutes on two idle cores with the kernels for GPUs. */
const fileLimit = 1800;

function run(args, env) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: root, stdio: "inherit", env: { ...process.env, ...env } });
    child.on("error", reject);
    child.on("exit", (status, signal) => resolve(status ?? (signal ? 1 : 0)));
  });
}

/** One adapter. @returns a line of the table */
async function testOn({ name, driver, env, device }, chosen, environment, folder) {
  const started = Date.now();
  const { variables, problem } = variablesFor(environment, { ...process.env, BLIPFLEET_DRIVER: driver });
  if (problem) return { name, outcome: `not here: ${problem}`, good: false };
  const countsPath = join(folder, "counts.json");
  rmSync(countsPath, { force: true });
  const status = await run(
    [
      "--test",
      "--test-concurrency=1",
      `--test-timeout=${fileLimit * 1000}`,
      `--test-reporter=${new URL("./test-reporter.mjs", import.meta.url).href}`,
      "--test-reporter-destination=stdout",
      ...chosen.map((file) => join("dist", "test", "models", file)),
    ],
    {
      ...variables,
      ...env,
      // Mesa 25.0 looks up compiled programs without regard to the width of their vectors.
      MESA_SHADER_CACHE_DIR: join(cacheFolder(), "mesa", env.LP_NATIVE_VECTOR_WIDTH ?? "usual"),
      BLIPFLEET_TEST_DEVICE: JSON.stringify(device),
      BLIPFLEET_TEST_COUNTS: countsPath,
    },
  );
  const seconds = ((Date.now() - started) / 1000).toFixed(0);
  if (!existsSync(countsPath)) return { name, outcome: `cut off after ${seconds} s`, good: false };
  const { files: count, passed, failed, skipped, adapters } = JSON.parse(readFileSync(countsPath, "utf8"));
  const good = status === 0 && failed === 0 && skipped === 0 && passed > 0;
  const outcome = `${good ? "same ids" : "FAILED"}: ${count} files, ${passed} passed, ${failed} failed, ${seconds} s`;
  return { name, outcome, good, adapter: adapters.join("; ") };
}

async function main() {
  const { values } = parseArgs({
    options: {
      adapter: { type: "string", multiple: true, default: [] },
      only: { type: "string", multiple: true, default: [] },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const matches = (text, patterns) => patterns.length === 0 || patterns.some((pattern) => text.includes(pattern));
  await build({ tell: (line) => process.stdout.write(`test: ${line}\n`) });
  const chosen = readdirSync(join(root, "dist", "test", "models"))
    .filter((file) => files.test(file) && !notIds.test(file) && matches(file, values.only))
    .sort();
  const all = JSON.parse(readFileSync(join(root, "test", "adapters.json"), "utf8"));
  const adapters = all.filter(({ name }) => matches(name, values.adapter));
  if (adapters.length === 0 || chosen.length === 0) {
    throw new SetupError("test: expected --adapter and --only to leave an adapter and a file, got none");
  }
  const environment = readEnvironment();
  const folder = mkdtempSync(join(tmpdir(), "blipfleet-adapters-"));
  const lines = [];
  try {
    for (const adapter of adapters) {
      process.stdout.write(`\ntest: ${chosen.length} files on ${adapter.name}\n`);
      lines.push(await testOn(adapter, chosen, environment, folder));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  process.stdout.write("\n");
  const width = Math.max(...lines.map(({ name }) => name.length));
  for (const { name, outcome, adapter } of lines) {
    process.stdout.write(`${name.padEnd(width)}  ${outcome}${adapter ? `  (${adapter})` : ""}\n`);
  }
  return lines.every(({ good }) => good) ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  const wrongUse = error.code?.startsWith?.("ERR_PARSE_ARGS");
  process.stderr.write(
    `${wrongUse ? `test: ${error.message}\n${usage}` : error instanceof SetupError ? error.message : error.stack}\n`,
  );
  process.exitCode = wrongUse ? 2 : 1;
}
