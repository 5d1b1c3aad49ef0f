import assert from "node:assert/strict";
import { test } from "node:test";
import { relativeBuckets } from "../../src/models/relative-buckets.ts";
import { readJson } from "../fixture-files.ts";

interface Printed {
  readonly buckets: number;
  readonly max_distance: number;
  readonly bidirectional: boolean;
  /** Of the distances -150 to 150. */
  readonly of_distances: readonly number[];
}

const printed = await readJson<readonly Printed[]>("t5-buckets.json");

for (const { buckets, max_distance, bidirectional, of_distances } of printed) {
  test(`${buckets} buckets up to ${max_distance}, ${bidirectional ? "both sides" : "one side"}: as transformers`, () => {
    const got = relativeBuckets({ buckets, maxDistance: max_distance }, bidirectional);
    assert.equal(got.length, 2 * max_distance + 1);
    // What lies beyond is clamped by who asks.
    const all = of_distances.map(
      (_, i) => got[Math.max(-max_distance, Math.min(max_distance, i - 150)) + max_distance],
    );
    assert.deepEqual(all, of_distances);
  });
}
