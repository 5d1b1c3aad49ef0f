import assert from "node:assert/strict";
import { test } from "node:test";
import { embedPatches } from "../../src/kernels/embed-patches.ts";
import { embedPatchesReference } from "../reference/embed-patches.ts";
import { openRig, randomValues } from "./harness.ts";

const rig = await openRig();

for (const [batch, patches, width] of [
  [1, 1, 1],
  [2, 3, 5],
  [3, 16, 64],
  [2, 9, 88],
  [1, 256, 1408],
  // More elements than one dimension of workgroups holds.
  [40, 256, 409],
] as const) {
  test(`batch ${batch}, ${patches} patches of ${width}`, async () => {
    const x = randomValues(batch * patches * width, 1);
    const first = randomValues(width, 2);
    const position = randomValues((patches + 1) * width, 3);
    const tensors = [
      await rig.tensor("x", [batch * patches, width], x),
      await rig.tensor("class", [width], first),
      await rig.tensor("position", [patches + 1, width], position),
    ] as const;
    const [y] = await rig.run((k) => [embedPatches(k, ...tensors, batch)]);
    // One addition: the f32 sum is the f64 sum rounded once.
    const expected = Float32Array.from(embedPatchesReference(x, first, position, { batch, patches, width }));
    assert.deepEqual(y, expected);
  });
}

test("wrong shapes are named", async () => {
  const x = await rig.tensor("x", [6, 4], new Float32Array(24));
  const first = await rig.tensor("class", [4], new Float32Array(4));
  const position = await rig.tensor("position", [3, 4], new Float32Array(12));
  const launch = rig.run((k) => [embedPatches(k, x, first, position, 2)]);
  await assert.rejects(launch, /ShapeError: embedPatches: expected x to be \(4, 4\), got \(6, 4\)/);
});
