// The ids of a few cases on another kind of adapter, in a process of its own.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import type { OpenOptions } from "../../src/gpu/device.ts";
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
  readonly device: Pick<OpenOptions, "softwareAdapter" | "bindingLimit" | "withheldFeatures">;
}

const entries: readonly Entry[] = JSON.parse(readFileSync(join(packageRoot, "test", "adapters.json"), "utf8"));

async function answerOn({ env, device }: Entry): Promise<Answer> {
  const { stdout } = await promisify(execFile)(process.execPath, [join(import.meta.dirname, "ids-here.js")], {
    env: { ...process.env, ...env, BLIPFLEET_TEST_DEVICE: JSON.stringify(device) },
  });
  return JSON.parse(stdout);
}

/** Test the ids on an adapter of test/adapters.json, as far as the one at hand can stand for it. */
export function testIdsOn(name: string): void {
  test(`ids as of ${name}`, async () => {
    const entry = entries.find((each) => each.name === name);
    assert.ok(entry);
    const { ids, features, softwareAdapter, bindingLimit, subgroupMaxSize } = await answerOn(entry);
    for (const dtype of ["f32", "f16"] as const) {
      assert.ok(ids[dtype].length >= 2, dtype);
      for (const { name: label, got, expected } of ids[dtype]) assert.deepEqual(got, expected, `${dtype} ${label}`);
    }
    const { withheldFeatures = [], ...asked } = entry.device;
    for (const feature of withheldFeatures) assert.ok(!features.includes(feature), feature);
    const got = { softwareAdapter, bindingLimit };
    assert.deepEqual({ ...got, ...asked }, got, "the device is as it was asked for");
    // Other drivers take no notice of lavapipe's option.
    const lanes = Number(/(\d+) lanes/.exec(name)?.[1]);
    if (process.env.BLIPFLEET_DRIVER === "lavapipe" && lanes) assert.equal(subgroupMaxSize, lanes);
  });
}
