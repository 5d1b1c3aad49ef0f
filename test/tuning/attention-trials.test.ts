// What attention's variants are measured on: the answers in f64 are those of the kernels, and of no others.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { openGpu } from "../../src/gpu/device.ts";
import { tunedAttention } from "../../src/tuning/attention.ts";
import { tunedCachedAttention } from "../../src/tuning/cached-attention.ts";
import { refuseNothing } from "../kernels/families.ts";

const gpu = await openGpu({ nap: true, tell: refuseNothing });
after(() => gpu.close());
const adapter = { softwareAdapter: gpu.report.softwareAdapter, lanes: 8, quick: true };

for (const [operation, shapeClass] of [
  [tunedAttention, "up to 8 queries"],
  [tunedCachedAttention, "any rows"],
] as const) {
  test(`${operation.name}, ${shapeClass}`, async () => {
    const closed = gpu.allocatedBytes;
    const trial = await operation.trial(shapeClass, adapter).open(gpu);
    const bytesOfTrial = gpu.allocatedBytes - closed;
    const list = await gpu.record("trial", trial.forward);
    const [bytes = new ArrayBuffer(0)] = await gpu.submit([list], { reads: [list.result] });
    const got = new Float32Array(bytes);
    // Of every head, and of every query.
    for (let i = 0; i < got.length; i += 29) {
      const { value, tolerance } = trial.expected(i);
      assert.ok(Math.abs((got[i] ?? Number.NaN) - value) <= tolerance, `element ${i}: ${value} and ${got[i]}`);
      const other = got[(i + 1) % got.length] ?? value;
      assert.ok(Math.abs(other - value) > tolerance, `element ${i} could be its neighbour, ${other}`);
    }
    const open = gpu.allocatedBytes;
    trial.close();
    assert.equal(gpu.allocatedBytes, open - bytesOfTrial);
    list.destroy();
  });
}

test("each family is tried, the kind's own first, and none twice", () => {
  for (const softwareAdapter of [true, false]) {
    for (const quick of [true, false]) {
      const given = { softwareAdapter, lanes: 8, quick };
      for (const [operation, own] of [
        [tunedAttention, softwareAdapter ? "attention-lanes" : "attention-tiled"],
        [tunedCachedAttention, softwareAdapter ? "cached-attention-lanes" : "cached-attention"],
      ] as const) {
        const offered = operation.classes.map((shapeClass) => operation.candidates(shapeClass, given));
        for (const candidates of offered) {
          assert.equal(candidates[0]?.shader, own);
          assert.equal(new Set(candidates.map(({ shader }) => shader)).size, 2);
          assert.equal(new Set(candidates.map((each) => JSON.stringify(each))).size, candidates.length);
          for (const each of candidates) operation.variant.parse(each);
        }
      }
    }
  }
});
