import assert from "node:assert/strict";
import { test } from "node:test";
import { selectRowOfEach, selectRows } from "../../src/kernels/select-rows.ts";
import { openRig, randomValues } from "./harness.ts";

const rig = await openRig();

for (const [rows, width, picks] of [
  [1, 1, [0]],
  [7, 63, [6, 0, 3]],
  [5, 64, [4]],
  [9, 65, [8, 8, 0, 1, 2]],
  [40, 130, [39, 12]],
] as const) {
  test(`rows ${picks.join(", ")} of (${rows}, ${width})`, async () => {
    const values = randomValues(rows * width, 7);
    const x = await rig.tensor("x", [rows, width], values);
    const at = await rig.tensor("picks", [picks.length], picks, "u32");
    const own = await rig.tensor("own", [picks.length, width]);
    const [y, into] = await rig.run((k) => [selectRows(k, x, at), selectRows(k, x, at, own)]);
    assert.deepEqual(into, y);
    assert.deepEqual(
      [...(y ?? [])],
      picks.flatMap((row) => [...values.subarray(row * width, (row + 1) * width)]),
    );
  });
}

for (const [itemRows, width, picks] of [
  [1, 3, [0, 0]],
  [5, 63, [4, 0, 2]],
  [7, 66, [6, 6, 1, 3]],
] as const) {
  test(`rows ${picks.join(", ")} of items of ${itemRows} rows, ${width} wide`, async () => {
    const values = randomValues(picks.length * itemRows * width, 8);
    const x = await rig.tensor("x", [picks.length * itemRows, width], values);
    const at = await rig.tensor("picks", [picks.length], picks, "u32");
    const [y] = await rig.run((k) => [selectRowOfEach(k, x, at)]);
    assert.deepEqual(
      [...(y ?? [])],
      picks.flatMap((row, item) => [...values.subarray((item * itemRows + row) * width).subarray(0, width)]),
    );
  });
}

test("rows that are not those of so many items are refused", async () => {
  const x = await rig.tensor("x", [7, 2], new Float32Array(14));
  const picks = await rig.tensor("picks", [2], [0, 1], "u32");
  const launch = rig.run((k) => [selectRowOfEach(k, x, picks)]);
  await assert.rejects(launch, /ShapeError: selectRowOfEach: expected rows of 2 items, got 7/);
});
