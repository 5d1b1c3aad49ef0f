import assert from "node:assert/strict";
import { test } from "node:test";
import { add } from "../../src/kernels/add.ts";
import { addReference } from "../reference/add.ts";
import { openRig, randomValues } from "./harness.ts";

const rig = await openRig();

for (const [xRows, addendRows, width] of [
  [1, 1, 1],
  [7, 7, 9],
  [6, 2, 33],
  [2, 6, 33],
  [1, 5, 64],
  [96, 32, 88],
  // More elements than one dimension of workgroups holds.
  [2, 1026, 4099],
] as const) {
  test(`(${xRows}, ${width}) + (${addendRows}, ${width})`, async () => {
    const x = randomValues(xRows * width, 1);
    const addend = randomValues(addendRows * width, 2);
    const a = await rig.tensor("x", [xRows, width], x);
    const b = await rig.tensor("addend", [addendRows, width], addend);
    const [y] = await rig.run((k) => [add(k, a, b)]);
    // One addition: the f32 sum is the f64 sum rounded once.
    assert.deepEqual(y, Float32Array.from(addReference(x, addend)));
  });
}

test("wrong shapes are named", async () => {
  const x = await rig.tensor("x", [6, 4], new Float32Array(24));
  const four = await rig.tensor("four", [4, 4], new Float32Array(16));
  const wide = await rig.tensor("wide", [6, 5], new Float32Array(30));
  await assert.rejects(
    rig.run((k) => [add(k, x, four)]),
    /ShapeError: add: expected rows of four to repeat in x, got 4/,
  );
  await assert.rejects(
    rig.run((k) => [add(k, x, wide)]),
    /ShapeError: add: expected wide to be \(rows, 4\), got/,
  );
});
