// Broken copies of the shaders, which the kernel tests must reject: a test that passes on a broken kernel tests nothing.
//
// test/mutants/<shader>.json lists them as {name, find, replace} on the text of shaders/<shader>.wgsl; `find` occurs
// there exactly once. Each broken copy must still compile. Its tests are those of the kernel, dist/test/kernels/
// <shader>.test.js, or the file that "test" names; they pass on the unbroken shaders, which is checked first. What says
// "matrices": true runs on a driver with subgroup matrices; where there is none its mutants are told as not run.

import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { cacheFolder, readEnvironment } from "../bin/environment.mjs";
import { ensureMatrixDriver } from "./setup/adapters.mjs";

const usage = `usage: node scripts/mutants.mjs [OPTIONS]
  --only SHADER   only the mutants of this shader (may be repeated)
  --dist FOLDER   compiled tests, default dist
`;

const root = fileURLToPath(new URL("..", import.meta.url));
const mutantFolder = join(root, "test", "mutants");
/** A mutant that has not failed by then hangs, which counts as an error. */
const limitMilliseconds = 300_000;

/** All mutants of one file, checked: name, find and replace are text, and find occurs once. */
export function readMutants(shader) {
  const path = join(mutantFolder, `${shader}.json`);
  const { test = `kernels/${shader}.test.js`, matrices = false, mutants } = JSON.parse(readFileSync(path, "utf8"));
  const source = readFileSync(join(root, "shaders", `${shader}.wgsl`), "utf8");
  return mutants.map(({ name, find, replace }) => {
    for (const text of [name, find, replace]) {
      if (typeof text !== "string") throw new Error(`${path}: expected name, find and replace, got ${String(text)}`);
    }
    const count = source.split(find).length - 1;
    if (count !== 1)
      throw new Error(`${path}: expected \`${find}\` of "${name}" once in the shader, got ${count} times`);
    return { shader, test, matrices, name, text: source.replace(find, () => replace) };
  });
}

/** What to start a test with that needs subgroup matrices, or why this machine has none. */
async function matrixDriver() {
  const environment = readEnvironment();
  if (environment?.adapters[environment.adapter]?.matrices) return { program: process.execPath, env: {} };
  return ensureMatrixDriver(cacheFolder());
}

/** Run a test file on a folder of shaders until its end or first failure. @returns "passed", or the failure's output */
async function runTest(file, shaders, matrices) {
  const { program, env } = matrices ? await matrixDriver() : { program: process.execPath, env: {} };
  return new Promise((done, reject) => {
    const child = spawn(program, ["--test", "--test-reporter=tap", file], {
      cwd: root,
      env: { ...process.env, ...env, BLIPFLEET_SHADERS: shaders },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    let output = "";
    let failed = false;
    const end = () => {
      try {
        process.kill(-child.pid, "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    };
    const timer = setTimeout(() => {
      end();
      reject(new Error(`${file}: expected an end within ${limitMilliseconds / 1000} s, got none`));
    }, limitMilliseconds);
    child.stdout.on("data", (chunk) => {
      output += chunk;
      // A failure's details follow its first line up to the closing dots.
      if (!failed && /^ *not ok [\s\S]*?^ *\.\.\.$/m.test(output)) {
        failed = true;
        end();
      }
    });
    child.stderr.on("data", (chunk) => {
      output += chunk;
    });
    child.on("error", reject);
    child.on("close", (status) => {
      clearTimeout(timer);
      done(!failed && status === 0 ? "passed" : output);
    });
  });
}

/** @returns undefined if the tests reject the mutant, else what is wrong. */
async function tryMutant({ shader, test, matrices, text }, dist) {
  const folder = mkdtempSync(join(tmpdir(), "mutant-"));
  try {
    cpSync(join(root, "shaders"), folder, { recursive: true });
    writeFileSync(join(folder, `${shader}.wgsl`), text);
    const outcome = await runTest(join(dist, "test", test), folder, matrices);
    if (outcome === "passed") return "its tests pass";
    const compile = new RegExp(`shaders/${shader}\\.wgsl:\\d+.*`).exec(outcome);
    return compile ? `it does not compile: ${compile[0]}` : undefined;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Two at a time: the project's budget is for two cores. */
async function inPairs(items, work) {
  const queue = [...items];
  const turn = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all([turn(), turn()]);
}

async function main() {
  const { values } = parseArgs({
    options: {
      only: { type: "string", multiple: true, default: [] },
      dist: { type: "string", default: "dist" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const dist = resolve(root, values.dist);
  const shaders = readdirSync(mutantFolder)
    .map((file) => basename(file, ".json"))
    .filter((shader) => values.only.length === 0 || values.only.includes(shader));
  const all = shaders.flatMap(readMutants);
  const { problem } = all.some(({ matrices }) => matrices) ? await matrixDriver() : {};
  const mutants = all.filter(({ matrices }) => !matrices || !problem);
  for (const { shader, name } of all.filter(({ matrices }) => matrices && problem)) {
    process.stdout.write(`not run: ${shader}: ${name}: ${problem}\n`);
  }
  if (mutants.length === 0)
    throw new Error(`mutants: expected some for ${values.only.join(", ") || "any shader"}, got none`);
  const started = Date.now();
  let problems = 0;
  const report = (line, problem) => {
    if (problem) problems++;
    process.stdout.write(`${problem ? "FAIL" : "ok  "} ${line}${problem ? `: ${problem}` : ""}\n`);
  };
  const tests = new Map(mutants.map(({ test, matrices }) => [test, matrices]));
  await inPairs(tests, async ([test, matrices]) => {
    const file = join(dist, "test", test);
    const outcome = existsSync(file)
      ? await runTest(file, join(root, "shaders"), matrices)
      : "no such file; build first";
    if (outcome !== "passed") report(`${test} on the unbroken shaders`, `expected it to pass, got:\n${outcome}`);
  });
  if (problems > 0) return 1;
  await inPairs(mutants, async (mutant) => report(`${mutant.shader}: ${mutant.name}`, await tryMutant(mutant, dist)));
  const seconds = Math.round((Date.now() - started) / 1000);
  process.stdout.write(`${mutants.length - problems} of ${mutants.length} mutants rejected in ${seconds} s\n`);
  return problems === 0 ? 0 : 1;
}

if (process.argv[1] && import.meta.url === new URL(`file://${resolve(process.argv[1])}`).href) {
  process.exitCode = await main().catch((error) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  });
}
