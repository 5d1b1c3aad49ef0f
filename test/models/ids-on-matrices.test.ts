// The same ids with the kernels for GPUs and subgroup matrices. Runs where the adapter offers those, as matmul-matrix.test.ts.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

test("transformers' ids, of f32 and f16", async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [join(import.meta.dirname, "ids-here.js")], {
    env: { ...process.env, BLIPFLEET_TEST_DEVICE: JSON.stringify({ softwareAdapter: false }) },
  });
  const { ids, features, softwareAdapter } = JSON.parse(stdout);
  assert.ok(features.includes("chromium-experimental-subgroup-matrix"));
  assert.equal(softwareAdapter, false);
  for (const dtype of ["f32", "f16"] as const) {
    assert.ok(ids[dtype].length >= 2, dtype);
    for (const { name, got, expected } of ids[dtype]) assert.deepEqual(got, expected, `${dtype} ${name}`);
  }
});
