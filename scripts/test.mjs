// The tests: build, lint, then node:test over dist/test, on the primary adapter and once more on a second driver for
// everything that runs kernels. Fails when a test fails or is skipped, when a file holds none, or when none ran.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { cacheFolder, readEnvironment, variablesFor } from "../bin/environment.mjs";
import { build } from "./build.mjs";
import { ensureMatrixDriver } from "./setup/adapters.mjs";
import { SetupError } from "./setup/steps.mjs";

const usage = `usage: npm test [-- OPTIONS]
  --only PATTERN   only test files whose path contains PATTERN (may be repeated)
  --all            also the long tests (*.long.test.ts), and every model on both drivers
  --mutants        instead: broken copies of the shaders, which the kernel tests must reject (--only SHADER)
  --driver KIND    only on this adapter: gpu, lavapipe, swiftshader or lavapipe-26 (which has subgroup matrices)
`;

const root = fileURLToPath(new URL("..", import.meta.url));
/** Files run at once; the project's budget is for two cores, and GPU tests on a software driver use both. */
const concurrency = 2;
/** What compares times with each other runs alone: noise from a neighbour is no finding. */
const timed = ["whole/answers-first"];
/** Seconds for one file; the slowest whole-stack test takes about a minute and a half on two cores, the long ones five. */
const fileLimit = 300;
const longFileLimit = 900;

/** What runs on the second driver too, by the start of its path below test/. */
const onBothDrivers = ["gpu/", "kernels/", "models/small", "models/demo-examples.test"];
const onBothDriversWithAll = [...onBothDrivers, "models/", "answer", "cli/local", "self-test-faults"];

/** What needs subgroup matrices, by the start of its path below test/: it runs on an adapter that has them, and nowhere else. */
const onMatrices = ["kernels/matmul-matrix", "models/ids-on-matrices"];
const matrixDriverName = "lavapipe-26";

/** Compiled test files, relative to dist/test, sorted. */
function testFiles({ all, only }) {
  return readdirSync(join(root, "dist", "test"), { recursive: true })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => path.endsWith(".test.js"))
    .filter((path) => all || only.length > 0 || !path.endsWith(".long.test.js"))
    .filter((path) => only.length === 0 || only.some((pattern) => `test/${path}`.includes(pattern)))
    .sort();
}

function start(command, args, env) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: "inherit", env: { ...process.env, ...env } });
    child.on("error", reject);
    child.on("exit", (status, signal) => resolve(status ?? (signal ? 1 : 0)));
  });
}

/** Run these files on one driver. @returns the reporter's counts and the status of node:test */
async function runFiles(files, { program, variables }, driver, folder, atOnce) {
  const countsPath = join(folder, `${driver}-${atOnce}.json`);
  const args = [
    "--test",
    `--test-concurrency=${atOnce}`,
    `--test-timeout=${(files.some((path) => path.endsWith(".long.test.js")) ? longFileLimit : fileLimit) * 1000}`,
    `--test-reporter=${new URL("./test-reporter.mjs", import.meta.url).href}`,
    "--test-reporter-destination=stdout",
    ...files.map((path) => join("dist", "test", path)),
  ];
  const status = await start(program, args, { ...variables, BLIPFLEET_TEST_COUNTS: countsPath });
  if (!existsSync(countsPath)) {
    throw new SetupError(`test: expected the tests on ${driver} to run to their end, got a run that was cut off`);
  }
  return { driver, status, ...JSON.parse(readFileSync(countsPath, "utf8")) };
}

/** What to start the tests with, and under which variables. @throws SetupError */
function driverCalled(environment, matrixDriver, driver) {
  const matrices = driver === matrixDriverName;
  if (matrices && matrixDriver.problem)
    throw new SetupError(`test: expected the driver ${driver}, got: ${matrixDriver.problem}`);
  const own = { ...process.env, BLIPFLEET_DRIVER: matrices ? "auto" : driver };
  const { variables, problem } = variablesFor(environment, own);
  if (problem) throw new SetupError(problem);
  if (!matrices) return { program: process.execPath, variables };
  return { program: matrixDriver.program, variables: { ...variables, ...matrixDriver.env } };
}

async function main() {
  const { values } = parseArgs({
    options: {
      all: { type: "boolean", default: false },
      mutants: { type: "boolean", default: false },
      only: { type: "string", multiple: true, default: [] },
      driver: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const started = Date.now();
  await build({ tell: (line) => process.stdout.write(`test: ${line}\n`) });
  const environment = readEnvironment();
  if (!environment?.adapter) throw new SetupError("test: expected a WebGPU adapter, found none; run `npm run setup`");
  if (values.mutants) {
    const only = values.only.flatMap((shader) => ["--only", shader]);
    return start(process.execPath, ["scripts/mutants.mjs", ...only], variablesFor(environment).variables);
  }
  if (values.only.length === 0) {
    process.stdout.write("test: linting\n");
    const biome = join(root, "node_modules", "@biomejs", "biome", "bin", "biome");
    if ((await start(process.execPath, [biome, "check", "--error-on-warnings"])) !== 0) return 1;
  }
  const files = testFiles(values);
  const { runs, notRun, matrixDriver } = await planned(files, values, environment);
  const folder = mkdtempSync(join(tmpdir(), "blipfleet-test-"));
  const results = [];
  try {
    for (const [driver, chosen, atOnce] of runs.flatMap(withTimedAlone)) {
      if (chosen.length === 0) continue;
      const description = (environment.adapters[driver] ?? matrixDriver)?.description;
      process.stdout.write(`\ntest: ${chosen.length} files on ${driver}: ${description}\n`);
      const called = driverCalled(environment, matrixDriver, driver);
      results.push(await runFiles(chosen, called, driver, folder, atOnce));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return summarise(results, notRun, (Date.now() - started) / 1000);
}

/** Which files run on which driver, and which on none, with the reason; the driver with matrices is fetched where needed. */
async function planned(files, { all, driver: only }, environment) {
  const startsWith = (path, starts) => starts.some((start) => path.startsWith(start));
  const { adapter: primary, secondAdapter: second, adapters } = environment;
  const plain = files.filter((path) => !startsWith(path, onMatrices));
  const withMatrices = files.filter((path) => startsWith(path, onMatrices));
  const notRun = (reason) => withMatrices.map((path) => [path, reason]);
  if (only === matrixDriverName) {
    return { runs: [[only, files]], notRun: [], matrixDriver: await ensureMatrixDriver(cacheFolder()) };
  }
  if (only && !adapters[only]?.matrices)
    return { runs: [[only, plain]], notRun: notRun(`${only} has no subgroup matrices`) };
  if (only) return { runs: [[only, files]], notRun: [] };
  const prefixes = all ? onBothDriversWithAll : onBothDrivers;
  const again = second ? [[second, plain.filter((path) => startsWith(path, prefixes))]] : [];
  if (!second) process.stdout.write("test: no second driver on this platform; kernels are tested on one only\n");
  if (adapters[primary]?.matrices) return { runs: [[primary, files], ...again], notRun: [] };
  const runs = [[primary, plain], ...again];
  if (withMatrices.length === 0) return { runs, notRun: [] };
  const matrixDriver = await ensureMatrixDriver(cacheFolder());
  if (matrixDriver.problem) return { runs, notRun: notRun(matrixDriver.problem) };
  return { runs: [...runs, [matrixDriverName, withMatrices]], notRun: [], matrixDriver };
}

/** Two runs: everything that may share the machine, then one by one what may not. */
function withTimedAlone([driver, files]) {
  const isTimed = (path) => timed.some((prefix) => path.startsWith(prefix));
  return [
    [driver, files.filter((path) => !isTimed(path)), concurrency],
    [driver, files.filter(isTimed), 1],
  ];
}

function summarise(results, notRun, seconds) {
  process.stdout.write("\n");
  for (const [path, reason] of notRun) process.stdout.write(`test: not run: ${path}: ${reason}\n`);
  let good = results.length > 0;
  for (const { driver, status, files, passed, failed, skipped, empty, adapters } of results) {
    process.stdout.write(`test: ${driver}: ${files} files, ${passed} passed, ${failed} failed, ${skipped} skipped\n`);
    for (const adapter of adapters) process.stdout.write(`test: ${driver}: ran on ${adapter}\n`);
    for (const file of empty) process.stdout.write(`test: ${file}: expected at least one test, got none\n`);
    if (status !== 0 || failed > 0 || skipped > 0 || passed === 0 || empty.length > 0) good = false;
  }
  if (results.length === 0) process.stdout.write("test: expected at least one test file, found none\n");
  const sum = (count) => results.reduce((total, result) => total + result[count], 0);
  process.stdout.write(`test: ${good ? "passed" : "FAILED"} in ${seconds.toFixed(0)} s\n`);
  process.stdout.write(`test: ${sum("passed")} passed, ${sum("failed")} failed, ${sum("skipped")} skipped\n`);
  return good ? 0 : 1;
}

process.stdout.on("error", (error) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(1); // the reader has gone, and nobody would see the verdict
});

try {
  process.exitCode = await main();
} catch (error) {
  const wrongUse = error.code?.startsWith?.("ERR_PARSE_ARGS");
  const text = wrongUse
    ? `test: ${error.message}\n${usage}`
    : error instanceof SetupError
      ? error.message
      : error.stack;
  process.stderr.write(`${text}\n`);
  process.exitCode = wrongUse ? 2 : 1;
}
