// Where the package lies: code may run from any output folder below it, shaders stay at its root.

import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { KernelError } from "./errors.ts";

/** Walk up from this module to the folder that holds package.json. */
function findPackageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) {
    const parent = dirname(folder);
    if (parent === folder)
      throw new Error(`package root: expected a package.json above ${import.meta.url}, found none`);
    folder = parent;
  }
  return folder;
}

export const packageRoot = findPackageRoot();

/** Folder of the WGSL files; tests of broken shader copies point BLIPFLEET_SHADERS at their own folder. */
export function shaderFolder(): string {
  return process.env.BLIPFLEET_SHADERS ?? join(packageRoot, "shaders");
}

/**
 * The text of `shaders/<shader>.wgsl`.
 * @throws KernelError if there is no such file.
 */
export function readShader(shader: string): string {
  try {
    return readFileSync(join(shaderFolder(), `${shader}.wgsl`), "utf8");
  } catch (cause) {
    throw new KernelError(`shaders/${shader}.wgsl: expected a readable file, got ${String(cause)}`, { cause });
  }
}
