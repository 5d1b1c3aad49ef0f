// A copy of the package's shaders in which some are wrong, as a driver that gets them wrong would make them seem.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { shaderFolder } from "../../src/gpu/package-root.ts";

/** In shaders/<shader>.wgsl the first `right` is replaced by `wrong`. */
export type Fault = readonly [shader: string, right: string, wrong: string];

/** Use the broken copy until the returned function is called. */
export function breakShaders(faults: readonly Fault[]): () => void {
  const original = shaderFolder();
  const before = process.env.BLIPFLEET_SHADERS;
  const folder = mkdtempSync(join(tmpdir(), "broken-shaders-"));
  for (const file of readdirSync(original)) {
    const text = readFileSync(join(original, file), "utf8");
    let broken = text;
    for (const [shader, right, wrong] of faults) {
      if (file !== `${shader}.wgsl`) continue;
      broken = broken.replace(right, wrong);
      assert.notEqual(broken, text, `${shader}: ${right}`);
    }
    writeFileSync(join(folder, file), broken);
  }
  process.env.BLIPFLEET_SHADERS = folder;
  return () => {
    if (before === undefined) delete process.env.BLIPFLEET_SHADERS;
    else process.env.BLIPFLEET_SHADERS = before;
    rmSync(folder, { recursive: true });
  };
}
