import assert from "node:assert/strict";
import { test } from "node:test";
import { selectRows } from "../../src/kernels/select-rows.ts";
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
    const [y] = await rig.run((k) => [selectRows(k, x, at)]);
    assert.deepEqual(
      [...(y ?? [])],
      picks.flatMap((row) => [...values.subarray(row * width, (row + 1) * width)]),
    );
  });
}
