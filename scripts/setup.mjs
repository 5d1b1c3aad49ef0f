// Make everything ready: npm packages, the build, a WebGPU adapter, nats-server, the Temporal CLI.
// Says what it does before it does it, keeps its downloads in one cache folder, and takes seconds the second time.

import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { cacheFolder, environmentFormat, readEnvironment } from "../bin/environment.mjs";

const usage = `usage: npm run setup [-- OPTIONS]
  --tests   also fetch SwiftShader, the second driver that the tests run on
  --local   without the servers that jobs need (nats-server, Temporal)
  --quiet   tell only what is done, not what was found in order
Downloads go to BLIPFLEET_CACHE, else XDG_CACHE_HOME/blipfleet, else ~/.cache/blipfleet.
`;
const oldestNode = [20, 11];

async function main() {
  const { values } = parseArgs({
    options: {
      tests: { type: "boolean", default: false },
      local: { type: "boolean", default: false },
      quiet: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major < oldestNode[0] || (major === oldestNode[0] && minor < oldestNode[1])) {
    process.stderr.write(`setup: expected Node ${oldestNode.join(".")} or newer, got ${process.versions.node}\n`);
    return 1;
  }
  const { found, say, setQuiet, withLock } = await import("./setup/steps.mjs");
  setQuiet(values.quiet);
  const cache = cacheFolder();
  found(`cache folder ${cache}`);
  const problems = await withLock(join(cache, "setup.lock"), "set-up", () => setUp(cache, values));
  for (const problem of problems) say(problem);
  if (problems.length === 0) found("ready");
  return problems.length === 0 ? 0 : 1;
}

/** Each piece in turn; one that cannot be had does not stop the others. @returns what the user must know */
async function setUp(cache, { tests, local }) {
  const { SetupError, run, say } = await import("./setup/steps.mjs");
  const { ensurePackages, linkCommand } = await import("./setup/packages.mjs");
  const { driverFingerprint, ensureAdapters } = await import("./setup/adapters.mjs");
  const { ensureNatsServer, ensureTemporal, removeGoCaches } = await import("./setup/programs.mjs");
  const { build } = await import("./build.mjs");
  const root = fileURLToPath(new URL("..", import.meta.url));
  const problems = [];
  const attempt = async (piece) => {
    try {
      return await piece();
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      problems.push(error.message);
      return null;
    }
  };
  const packaged = !existsSync(join(root, "package-lock.json")); // installed as a package: npm has done its part
  if (!packaged) {
    await attempt(() => ensurePackages(root));
    if (problems.length > 0) return problems; // nothing below works without them
    linkCommand(root);
    await attempt(() => build({ tell: say }));
  }
  const before = readEnvironment();
  const checked = () => ({
    drivers: driverFingerprint(cache),
    node: process.version,
    webgpu: JSON.parse(readFileSync(join(root, "node_modules", "webgpu", "package.json"), "utf8")).version,
  });
  const unchanged = before && JSON.stringify(before.checked) === JSON.stringify(checked());
  const {
    adapter,
    secondAdapter,
    adapters,
    problems: adapterProblems,
  } = await ensureAdapters(cache, { adapters: unchanged ? before.adapters : {} }, tests);
  problems.push(...adapterProblems);
  const programs = { natsServer: ensureNatsServer, temporal: ensureTemporal };
  const paths = {};
  const versions = {};
  for (const [name, ensure] of Object.entries(programs)) {
    const program = local
      ? { path: before?.[name], version: before?.versions[name] }
      : await attempt(() => ensure(cache));
    if (program?.path) [paths[name], versions[name]] = [program.path, program.version];
  }
  removeGoCaches(cache);
  const environment = {
    format: environmentFormat,
    adapter,
    secondAdapter,
    adapters,
    ...paths,
    versions,
    checked: checked(),
  };
  const path = join(cache, "environment.json");
  mkdirSync(cache, { recursive: true });
  writeFileSync(`${path}.${process.pid}`, `${JSON.stringify(environment, null, 2)}\n`);
  renameSync(`${path}.${process.pid}`, path);
  if (!before && adapter) {
    // Compiling them is what takes its time; what every command would do at first is so done once, and is remembered.
    say("testing the kernels on the adapter (under a minute on a software driver, once)");
    await run(process.execPath, [join(root, "bin", "blipfleet.mjs"), "doctor"], { seconds: 600 });
  }
  return problems;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(
    `setup: ${error.code?.startsWith?.("ERR_PARSE_ARGS") ? `${error.message}\n${usage}` : error.stack}\n`,
  );
  process.exitCode = error.code?.startsWith?.("ERR_PARSE_ARGS") ? 2 : 1;
}
