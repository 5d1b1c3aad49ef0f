// Remember that the kernels gave right answers here, so that a one-shot command need not ask again, and which of their
// variants did not.

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { AdapterReport } from "./adapter.ts";
import { packageRoot, shaderFolder } from "./package-root.ts";
import type { Variants } from "./variants.ts";

const memorySchema = z.object({
  passed: z.string(),
  refused: z.array(
    z.object({
      operation: z.string(),
      variant: z.record(z.string(), z.union([z.number(), z.string()])),
      reason: z.string(),
    }),
  ),
});

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

/**
 * Where a pass would be remembered: its name changes with the adapter, its driver, Dawn, the shaders, the settings and the
 * variants that the tables list.
 */
function memoryFile(folder: string, report: AdapterReport, variants: Variants): string {
  const manifest: unknown = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
  const { version, dependencies } = manifest as { version: string; dependencies: Record<string, string> };
  const listed = variants.tables.map(({ table }) => table.operations);
  const what = JSON.stringify([report, version, dependencies.webgpu, shaderDigest(), listed]);
  return join(folder, "self-test", `${createHash("sha256").update(what).digest("hex")}.json`);
}

export interface SelfTestOptions {
  readonly cacheFolder: string;
  /** Run it although a pass is remembered. Default false. */
  readonly testAnyway?: boolean;
}

/**
 * Run `test` unless it is known to pass on this adapter with this driver, these shaders and these variants; then the
 * variants that it refused are refused again. From now on it runs again whenever a variant is refused.
 * @throws what `test` throws; nothing is remembered then.
 */
export async function selfTestOnce(
  { cacheFolder: folder, testAnyway = false }: SelfTestOptions,
  report: AdapterReport,
  variants: Variants,
  test: () => Promise<void>,
): Promise<"passed" | "remembered"> {
  const file = memoryFile(folder, report, variants);
  const pass = async () => {
    await test();
    try {
      mkdirSync(join(folder, "self-test"), { recursive: true });
      const { refused } = variants;
      writeFileSync(file, `${JSON.stringify({ passed: new Date().toISOString(), refused, report }, null, 2)}\n`);
    } catch {
      // A cache folder that cannot be written costs the next start a self-test and nothing else.
    }
  };
  const memory = testAnyway ? null : remembered(file);
  if (memory) variants.restore(memory.refused);
  else await pass();
  variants.retest = pass;
  return memory ? "remembered" : "passed";
}

/** null: nothing, or nothing that can be read, as of a process that ended while it wrote. */
function remembered(file: string): z.infer<typeof memorySchema> | null {
  if (!existsSync(file)) return null;
  try {
    return memorySchema.parse(JSON.parse(readFileSync(file, "utf8")));
  } catch {
    return null;
  }
}
