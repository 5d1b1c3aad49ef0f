import assert from "node:assert/strict";
import { test } from "node:test";
import { firstRows, joinRows, repeatRows } from "../../src/kernels/place-rows.ts";
import { openRig, randomValues } from "./harness.ts";

const rig = await openRig();

for (const [items, a, b, width] of [
  [1, 1, 1, 1],
  [1, 3, 2, 63],
  [3, 2, 5, 64],
  [4, 32, 7, 65],
  [2, 1, 9, 130],
] as const) {
  test(`${items} items of ${a} and ${b} rows of ${width}`, async () => {
    const first = randomValues(items * a * width, 1);
    const second = randomValues(items * b * width, 2);
    const x1 = await rig.tensor("first", [items * a, width], first);
    const x2 = await rig.tensor("second", [items * b, width], second);
    const [joined, repeated, firsts] = await rig.run((k) => [
      joinRows(k, x1, x2, items),
      repeatRows(k, x1, 3),
      firstRows(k, x2, items),
    ]);
    const expected: number[] = [];
    for (let item = 0; item < items; item++) {
      expected.push(...first.subarray(item * a * width, (item + 1) * a * width));
      expected.push(...second.subarray(item * b * width, (item + 1) * b * width));
    }
    assert.deepEqual([...(joined ?? [])], expected);
    assert.deepEqual([...(repeated ?? [])], [...first, ...first, ...first]);
    const starts = Array.from({ length: items }, (_, item) => item * b * width);
    assert.deepEqual(
      [...(firsts ?? [])],
      starts.flatMap((start) => [...second.subarray(start, start + width)]),
    );
  });
}

test("rows that are not whole items are refused", async () => {
  const x = await rig.tensor("x", [3, 2], randomValues(6, 1));
  await assert.rejects(
    rig.run((k) => [joinRows(k, x, x, 2)]),
    /joinRows: expected rows of 2 items, got 3 and 3/,
  );
  await assert.rejects(
    rig.run((k) => [firstRows(k, x, 2)]),
    /firstRows: expected rows of 2 items, got 3/,
  );
});
