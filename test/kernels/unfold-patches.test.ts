import assert from "node:assert/strict";
import { test } from "node:test";
import { elementCount } from "../../src/gpu/tensor.ts";
import { unfoldPatches } from "../../src/kernels/unfold-patches.ts";
import { unfoldPatchesReference } from "../reference/unfold-patches.ts";
import { openRig } from "./harness.ts";

const rig = await openRig();

for (const [shape, size] of [
  [[1, 3, 14, 14], 14],
  [[2, 3, 28, 42], 14],
  [[3, 1, 4, 6], 2],
  [[1, 2, 7, 11], 3],
  [[2, 5, 3, 3], 1],
  [[1, 3, 224, 224], 14],
] as const) {
  test(`(${shape.join(", ")}) in patches of ${size}`, async () => {
    const values = Float32Array.from({ length: elementCount(shape) }, (_, i) => i);
    const pixels = await rig.tensor("pixels", shape, values);
    const [y] = await rig.run((k) => [unfoldPatches(k, pixels, size)]);
    assert.deepEqual([...(y ?? [])], [...unfoldPatchesReference(values, shape, size)]);
  });
}

test("more elements than one dimension of workgroups holds", async () => {
  const shape = [2, 3, 840, 840] as const;
  const values = Float32Array.from({ length: 2 * 3 * 840 * 840 }, (_, i) => i);
  const pixels = await rig.tensor("pixels", shape, values);
  const [y] = await rig.run((k) => [unfoldPatches(k, pixels, 14)]);
  const expected = Float32Array.from(unfoldPatchesReference(values, shape, 14));
  assert.ok(y && Buffer.from(y.buffer).equals(Buffer.from(expected.buffer)));
});

test("wrong shapes are named", async () => {
  const pixels = await rig.tensor("pixels", [3, 4, 4], new Float32Array(48));
  const launch = rig.run((k) => [unfoldPatches(k, pixels, 2)]);
  await assert.rejects(
    launch,
    /ShapeError: unfoldPatches: expected pixels to be \(batch, channels, height, width\), got/,
  );
});
