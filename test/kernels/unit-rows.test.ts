import assert from "node:assert/strict";
import { test } from "node:test";
import { unitRows } from "../../src/kernels/unit-rows.ts";
import { unitRowsReference } from "../reference/unit-rows.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();

async function compare(values: ArrayLike<number>, width: number, softwareAdapter: boolean): Promise<void> {
  const x = await rig.tensor("x", [values.length / width, width], values);
  const [y] = await rig.run((k) => [unitRows(asFamily(k, softwareAdapter), x)]);
  const reason = `f32 sum of ${width} squares, a root and two divisions`;
  expectClose(y, unitRowsReference(Float32Array.from(values), width), {
    absolute: 2 ** -26,
    relative: (8 + width) * 2 ** -24,
    reason,
  });
}

for (const { softwareAdapter, family } of families) {
  for (const [rows, width] of [
    [1, 1],
    [3, 7],
    [5, 8],
    [4, 9],
    [2, 63],
    [7, 64],
    [3, 65],
    [32, 256],
    [2, 301],
  ] as const) {
    test(`(${rows}, ${width}), ${family}`, () => compare(randomValues(rows * width, 4, 3), width, softwareAdapter));
  }

  test(`rows of any size, whose squares f32 does not hold, ${family}`, async () => {
    for (const scale of [1e-30, 1e-22, 1e-11, 1e-6, 1e6, 1e19, 1e30]) {
      await compare(randomValues(3 * 37, 5, scale), 37, softwareAdapter);
    }
  });

  test(`zeros stay zeros, beside rows that do not, ${family}`, async () => {
    const values = randomValues(3 * 11, 6);
    values.fill(0, 11, 22);
    await compare(values, 11, softwareAdapter);
  });

  test(`one large value, wherever it stands, ${family}`, async () => {
    for (const place of [0, 5, 8, 69]) {
      await compare(
        Float32Array.from({ length: 70 }, (_, i) => (i === place ? -5000 : i / 70)),
        70,
        softwareAdapter,
      );
    }
  });
}

test("more rows than one dimension of workgroups holds", async () => {
  await compare(randomValues(65540 * 2, 8), 2, rig.gpu.softwareAdapter);
});

test("wrong shapes are named", async () => {
  const x = await rig.tensor("x", [2, 3, 4], new Float32Array(24));
  const launch = rig.run((k) => [unitRows(k, x)]);
  await assert.rejects(launch, /ShapeError: unitRows: expected x to be \(rows, width\), got \(2, 3, 4\)/);
});
