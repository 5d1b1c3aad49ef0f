// The same ids on adapters of other kinds, as far as this one can stand for them: a few cases. `npm run test:adapters` runs all.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { packageRoot } from "../../src/gpu/package-root.ts";

interface Answer {
  readonly ids: Readonly<
    Record<"f32" | "f16", readonly { name: string; got: readonly number[]; expected: readonly number[] }[]>
  >;
  readonly subgroupMaxSize: number;
  readonly features: readonly string[];
  readonly softwareAdapter: boolean;
  readonly bindingLimit: number;
}

interface Entry {
  readonly name: string;
  readonly env: Readonly<Record<string, string>>;
  readonly device: { readonly softwareAdapter?: boolean; readonly bindingLimit?: number };
}

const entries: readonly Entry[] = JSON.parse(readFileSync(join(packageRoot, "test", "adapters.json"), "utf8"));

async function answerOn({ env, device }: Entry): Promise<Answer> {
  const { stdout } = await promisify(execFile)(process.execPath, [join(import.meta.dirname, "ids-here.js")], {
    env: { ...process.env, ...env, BLIPFLEET_TEST_DEVICE: JSON.stringify(device) },
  });
  return JSON.parse(stdout);
}

for (const name of ["lavapipe, 4 lanes", "lavapipe, 16 lanes", "lavapipe, GPU kernels, no f16, small bindings"]) {
  test(`ids as of ${name}`, async () => {
    const entry = entries.find((each) => each.name === name);
    assert.ok(entry);
    const { ids, features, softwareAdapter, bindingLimit, subgroupMaxSize } = await answerOn(entry);
    for (const dtype of ["f32", "f16"] as const) {
      assert.ok(ids[dtype].length >= 2, dtype);
      for (const { name: label, got, expected } of ids[dtype]) assert.deepEqual(got, expected, `${dtype} ${label}`);
    }
    if (name.includes("no f16")) {
      assert.ok(!features.includes("shader-f16"));
      assert.deepEqual([softwareAdapter, bindingLimit], [false, 65536]);
    }
    // Other drivers take no notice of lavapipe's option.
    const lanes = Number(/(\d+) lanes/.exec(name)?.[1]);
    if (process.env.BLIPFLEET_DRIVER === "lavapipe" && lanes) assert.equal(subgroupMaxSize, lanes);
  });
}
