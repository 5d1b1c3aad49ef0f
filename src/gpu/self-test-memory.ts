// Remember that the kernels gave right answers here, so that a one-shot command need not ask again.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { AdapterReport } from "./adapter.ts";
import { packageRoot, shaderFolder } from "./package-root.ts";

/** Hex SHA-256 over the names and bytes of all shaders. */
export function shaderDigest(): string {
  const hash = createHash("sha256");
  const names = readdirSync(shaderFolder()).filter((name) => name.endsWith(".wgsl"));
  for (const name of names.sort()) {
    const bytes = readFileSync(join(shaderFolder(), name));
    hash.update(`${name}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest("hex");
}

/** Where a pass would be remembered: its name changes with the adapter, its driver, Dawn, the shaders and the settings. */
function memoryFile(folder: string, report: AdapterReport): string {
  const manifest: unknown = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
  const { version, dependencies } = manifest as { version: string; dependencies: Record<string, string> };
  const what = JSON.stringify([report, version, dependencies.webgpu, shaderDigest()]);
  return join(folder, "self-test", `${createHash("sha256").update(what).digest("hex")}.json`);
}

/**
 * Run `test` unless it is known to pass on this adapter with this driver and these shaders.
 * @param folder the cache folder
 * @throws what `test` throws; nothing is remembered then.
 */
export async function selfTestOnce(
  folder: string,
  report: AdapterReport,
  test: () => Promise<void>,
): Promise<"passed" | "remembered"> {
  const file = memoryFile(folder, report);
  if (existsSync(file)) return "remembered";
  await test();
  try {
    mkdirSync(join(folder, "self-test"), { recursive: true });
    // That the file is there says it all; what is in it is for people.
    writeFileSync(file, `${JSON.stringify({ passed: new Date().toISOString(), report }, null, 2)}\n`);
  } catch {
    // A cache folder that cannot be written costs the next start a self-test and nothing else.
  }
  return "passed";
}
