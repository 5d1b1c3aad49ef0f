import assert from "node:assert/strict";
import { test } from "node:test";
import { meanRows } from "../../src/kernels/mean-rows.ts";
import { meanRowsReference } from "../reference/mean-rows.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();

for (const [items, count, width] of [
  [1, 1, 1],
  [1, 32, 2],
  [3, 5, 2],
  [4, 7, 3],
  [2, 3, 65],
  [33, 2, 2],
  // More elements than one dimension of workgroups holds.
  [2, 1, 2097300],
] as const) {
  test(`${items} items of (${count}, ${width})`, async () => {
    const values = randomValues(items * count * width, 9);
    const x = await rig.tensor("x", [items * count, width], values);
    const [y] = await rig.run((k) => [meanRows(k, x, items)]);
    const reason = `f32 sum of ${count} values of at most 1`;
    expectClose(y, meanRowsReference(values, items, width), { absolute: (count + 1) * 2 ** -24, relative: 0, reason });
  });
}

test("wrong shapes are named", async () => {
  const x = await rig.tensor("x", [5, 2], new Float32Array(10));
  await assert.rejects(
    rig.run((k) => [meanRows(k, x, 2)]),
    /ShapeError: meanRows: expected rows of 2 items, got 5/,
  );
});
