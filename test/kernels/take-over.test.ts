import assert from "node:assert/strict";
import { test } from "node:test";
import { takeOver } from "../../src/kernels/take-over.ts";
import { takeOverReference } from "../reference/take-over.ts";
import { openRig } from "./harness.ts";

const rig = await openRig();

test("every f16 there is", async () => {
  const x = rig.gpu.alloc("x", [256, 256], "f16");
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
  await rig.gpu.upload(x, new Uint8Array(bits.buffer));
  const [y] = await rig.run((k) => [takeOver(k, x)]);
  assert.deepEqual([...(y ?? [])], [...takeOverReference(bits)]);
});

for (const shape of [
  [1, 1],
  [1, 3],
  [5, 7],
  [33, 88],
  // More elements than one dimension of workgroups holds.
  [2, 2097400],
] as const) {
  test(`(${shape.join(", ")})`, async () => {
    const values = Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => (i % 2048) - 1024);
    const x = await rig.tensor("x", shape, values, "f16");
    const [y] = await rig.run((k) => [takeOver(k, x)]);
    assert.ok(y && Buffer.from(y.buffer).equals(Buffer.from(values.buffer)));
  });
}

test("f32 comes back as it is", async () => {
  const x = await rig.tensor("x", [2, 3], [1, 2, 3, 4, 5, 6]);
  let same = false;
  await rig.run((k) => {
    same = takeOver(k, x) === x;
    return [];
  });
  assert.ok(same);
});
