// onnxruntime-node in the cache folder, installed when the bench is first asked for it: it is large, and nothing else needs it.

import { spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

export const onnxRuntimeVersion = "1.30.0";

/**
 * Install it, unless it is there.
 * @returns the folder to require it from, or null where it cannot be had; `tell` has then said why
 */
export async function installedOnnxRuntime(cacheFolder: string, tell: (line: string) => void): Promise<string | null> {
  const folder = join(cacheFolder, "bench", `onnxruntime-node-${onnxRuntimeVersion}`);
  const stamp = join(folder, "installed.txt");
  if (existsSync(stamp)) return folder;
  tell(
    `bench: installing onnxruntime-node ${onnxRuntimeVersion}, the peer, with npm into ${folder} (290 MB; once, and only for this bench)`,
  );
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true }));
  const problem = await install(folder);
  if (problem === null) {
    writeFileSync(stamp, onnxRuntimeVersion);
    return folder;
  }
  tell(
    `bench: onnxruntime-node ${onnxRuntimeVersion} cannot be had: ${problem}; its columns stay empty. Make the npm registry ` +
      `reachable, or install it into ${folder} and put its version into installed.txt`,
  );
  return null;
}

/** @returns what went wrong, or null. Its install script, which fetches libraries for CUDA, is left out. */
function install(folder: string): Promise<string | null> {
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--save-exact"];
  return new Promise((resolve) => {
    const child = spawn(npm, ["install", ...options, `onnxruntime-node@${onnxRuntimeVersion}`], {
      cwd: folder,
      stdio: ["ignore", "ignore", "pipe"],
    });
    let errors = "";
    child.stderr.on("data", (data) => {
      errors += data;
    });
    child.on("error", (error) => resolve(error.message));
    child.on("close", (status) => {
      const line = errors.split("\n").find((each) => each.trim() !== "");
      resolve(status === 0 ? null : (line?.trim() ?? `npm ended with ${status}`));
    });
  });
}
