// WebGPU adapters: a GPU's own driver if there is one, else lavapipe, else SwiftShader. Each is probed in a child
// process with a shader whose answer is known, because a broken driver may take the process with it.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { driverFiles, installLavapipe, lavapipeDriverFile } from "./lavapipe.mjs";
import { ensureLavapipe26 } from "./lavapipe-26.mjs";
import { found, lastLine, run, SetupError, say } from "./steps.mjs";
import { ensureSwiftShader } from "./swiftshader.mjs";

const probeScript = fileURLToPath(new URL("./probe-adapter.mjs", import.meta.url));
/** Seconds; a first run compiles the driver's shaders, which takes about one on two cores. */
const probeLimit = 60;

/** XDG_RUNTIME_DIR where the user has none; lavapipe complains without. */
function runtimeFolder(cache) {
  if (process.env.XDG_RUNTIME_DIR) return {};
  const folder = join(cache, "runtime");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return { XDG_RUNTIME_DIR: folder };
}

/** @returns the adapter under these variables, or the reason why there is none */
async function probe(variables, program = process.execPath) {
  // what is recorded must not depend on the shell that set-up ran in
  const env = { VK_DRIVER_FILES: undefined, VK_ICD_FILENAMES: undefined, ...variables };
  const { status, stdout, stderr } = await run(program, [probeScript], { env, seconds: probeLimit });
  if (status !== 0) return { problem: lastLine(stderr) };
  return JSON.parse(lastLine(stdout));
}

const describe = ({ vendor, device, description }) => `${vendor} ${device} (${description})`;

/** Changes whenever a driver on this machine does: driver files, their libraries, the NVIDIA kernel module. */
export function driverFingerprint(cache) {
  const hash = createHash("sha256");
  const note = (path) => {
    const stat = statSync(path, { throwIfNoEntry: false });
    hash.update(`${path} ${stat?.size} ${stat?.mtimeMs}\n`);
  };
  for (const path of [...driverFiles(), join(cache, "swiftshader", "libvk_swiftshader.so")]) {
    note(path);
    const library = existsSync(path)
      ? /"library_path"\s*:\s*"(\/[^"]+)"/.exec(readFileSync(path, "utf8").slice(0, 4096))?.[1]
      : null;
    if (library) note(library);
  }
  const nvidia = "/proc/driver/nvidia/version";
  if (existsSync(nvidia)) hash.update(readFileSync(nvidia));
  return hash.digest("hex");
}

/** @throws SetupError */
async function probeSwiftShader(cache) {
  const folder = await ensureSwiftShader(cache);
  const env = { VK_DRIVER_FILES: join(folder, "vk_swiftshader_icd.json"), ...runtimeFolder(cache) };
  const plain = await probe(env);
  if (!plain.problem) return { env, description: describe(plain) };
  // no Vulkan loader on this machine: the one that came with SwiftShader
  const own = { ...env, LD_LIBRARY_PATH: folder };
  const withLoader = await probe(own);
  if (withLoader.problem)
    throw new SetupError(`SwiftShader: expected it to run a test shader, got: ${withLoader.problem}`);
  return { env: own, description: describe(withLoader) };
}

/**
 * The driver that tests of subgroup matrices run on where the adapter has none; fetched if it is not there. `program` is to
 * be started like Node.
 * @returns {Promise<{ program: string, env: Record<string, string>, description: string } | { problem: string }>}
 */
export async function ensureMatrixDriver(cache) {
  try {
    return await probedMatrixDriver(cache);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    return { problem: error.message };
  }
}

async function probedMatrixDriver(cache) {
  const { program, env } = await ensureLavapipe26(cache);
  // Its kernels compile only at the driver's own width.
  const variables = { ...env, ...runtimeFolder(cache), LP_NATIVE_VECTOR_WIDTH: "" };
  const adapter = await probe(variables, program);
  if (adapter.problem || !adapter.matrices) {
    throw new SetupError(
      `lavapipe 26: expected it to offer subgroup matrices, got ${adapter.problem ?? describe(adapter)}`,
    );
  }
  return { program, env: variables, description: describe(adapter) };
}

/**
 * Find (or fetch) the adapter that commands use, and for the tests a second one.
 * @param {{ adapters: object }} known what an earlier set-up found on the same drivers; probed anew when empty
 * @param {boolean} two the tests need two drivers
 * @returns {Promise<{ adapter, secondAdapter, adapters, problems: string[] }>}
 */
export async function ensureAdapters(cache, known, two) {
  const adapters = { ...known.adapters };
  const problems = [];
  if (Object.keys(adapters).length === 0) await findSystemAdapters(cache, adapters);
  if (process.platform === "linux" && !adapters.gpu && !adapters.lavapipe && !adapters.swiftshader) {
    try {
      await installLavapipe();
      await findSystemAdapters(cache, adapters);
      if (!adapters.lavapipe)
        problems.push("lavapipe: expected a test shader to run after its installation, got no adapter");
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      problems.push(error.message);
    }
  }
  const some = adapters.gpu || adapters.lavapipe;
  if (process.platform === "linux" && !adapters.swiftshader && (two || !some)) {
    try {
      adapters.swiftshader = await probeSwiftShader(cache);
      if (!some && driverFiles().length > 0) await findWithLoader(cache, adapters);
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      problems.push(error.message);
    }
  }
  const order = ["gpu", "lavapipe", "swiftshader"].filter((kind) => adapters[kind]);
  const [adapter = null] = order;
  const secondAdapter = adapter !== "swiftshader" && adapters.swiftshader ? "swiftshader" : null;
  if (adapter) found(`WebGPU adapter: ${adapter}, ${adapters[adapter].description}`);
  if (secondAdapter) found(`second adapter, for tests: ${secondAdapter}, ${adapters[secondAdapter].description}`);
  // what failed on the way to an adapter that works is no problem of the user's
  return { adapter, secondAdapter, adapters, problems: adapter && (secondAdapter || !two) ? [] : problems };
}

/** A GPU's driver on a machine without a Vulkan loader (containers): with the loader that came with SwiftShader. */
async function findWithLoader(cache, adapters) {
  const env = { LD_LIBRARY_PATH: join(cache, "swiftshader"), ...runtimeFolder(cache) };
  const system = await probe(env);
  if (!system.problem && !system.software)
    adapters.gpu = { env, description: describe(system), matrices: system.matrices };
}

async function findSystemAdapters(cache, adapters) {
  say("looking for a WebGPU adapter, with a small shader in a process of its own");
  const runtime = runtimeFolder(cache);
  const system = await probe(runtime);
  if (!system.problem && !system.software)
    adapters.gpu = { env: runtime, description: describe(system), matrices: system.matrices };
  const file = process.platform === "linux" ? lavapipeDriverFile() : null;
  if (!file) return;
  const env = { VK_DRIVER_FILES: file, ...runtime };
  const lavapipe = await probe(env);
  if (!lavapipe.problem) adapters.lavapipe = { env, description: describe(lavapipe), matrices: lavapipe.matrices };
}
