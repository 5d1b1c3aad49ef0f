import assert from "node:assert/strict";
import { test } from "node:test";
import { rmsNorm } from "../../src/kernels/rms-norm.ts";
import { type RmsNormCase, rmsNormReference } from "../reference/rms-norm.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();

async function run(given: RmsNormCase, softwareAdapter: boolean): Promise<Float32Array> {
  const { rows, width, eps, factor } = given;
  const x = await rig.tensor("x", [rows, width], given.x);
  const gain = await rig.tensor("gain", [width], given.gain);
  const [y] = await rig.run((k) => [rmsNorm(asFamily(k, softwareAdapter), x, { gain, eps }, factor)]);
  assert.ok(y instanceof Float32Array);
  return y;
}

/** Values of `spread` around `mean`, which stays in: rows far from 0 become rows of about 1. */
function around(mean: number, spread: number, rows: number, width: number): RmsNormCase {
  return {
    rows,
    width,
    x: randomValues(rows * width, 1, spread).map((value) => value + mean),
    gain: randomValues(width, 2).map((value) => value + 1.5),
    eps: 1e-6,
  };
}

const rounding = { absolute: 1e-7, relative: 4e-6, reason: "f32 sums of some hundred squares, a root and a division" };

for (const { softwareAdapter, family } of families) {
  for (const [rows, width] of [
    [1, 1],
    [1, 2],
    [3, 7],
    [2, 8],
    [5, 9],
    [2, 63],
    [1, 64],
    [4, 65],
    [3, 257],
    [33, 88],
    [7, 2048],
  ] as const) {
    test(`(${rows}, ${width}), ${family}`, async () => {
      const given = around(0.3, 2, rows, width);
      expectClose(await run(given, softwareAdapter), rmsNormReference(given), rounding);
    });
  }

  test(`the mean stays in, and values beyond f16's are no trouble, ${family}`, async () => {
    for (const mean of [30, -500, 70000, 1e7]) {
      const given = around(mean, 1, 3, 300);
      expectClose(await run(given, softwareAdapter), rmsNormReference(given), rounding);
    }
  });

  test(`eps stands inside the root: small rows, ${family}`, async () => {
    for (const [spread, eps] of [
      [1e-3, 1e-6],
      [1e-3, 0.5],
      [1, 0.25],
      [1.5e-6, 1e-12],
    ] as const) {
      const given = { ...around(0, spread, 4, 40), eps };
      expectClose(await run(given, softwareAdapter), rmsNormReference(given), { ...rounding, absolute: 1e-9 });
    }
  });

  test(`rows of zeros stay zeros, ${family}`, async () => {
    const given = { ...around(0, 0, 2, 77), x: new Float32Array(2 * 77) };
    assert.deepEqual([...(await run(given, softwareAdapter))], new Array(2 * 77).fill(0));
  });

  test(`the factor counts, ${family}`, async () => {
    for (const factor of [40 ** -0.5, 3]) {
      const given = { ...around(0.1, 1, 3, 40), factor };
      expectClose(await run(given, softwareAdapter), rmsNormReference(given), rounding);
    }
  });

  test(`a row's bits do not depend on the other rows, ${family}`, async () => {
    const given = around(1, 3, 40, 131);
    const all = await run(given, softwareAdapter);
    const x = Float32Array.from(given.x).slice(17 * 131, 18 * 131);
    assert.deepEqual(await run({ ...given, rows: 1, x }, softwareAdapter), all.slice(17 * 131, 18 * 131));
  });

  test(`more rows than one dimension holds, ${family}`, async () => {
    const given = around(0, 1, 65537, 3);
    expectClose(await run(given, softwareAdapter), rmsNormReference(given), rounding);
  });
}

test("wrong shapes are named", async () => {
  const x = await rig.tensor("x", [2, 8], new Float32Array(16));
  const gain = await rig.tensor("gain", [4], new Float32Array(4));
  const launch = rig.run((k) => [rmsNorm(k, x, { gain, eps: 1 })]);
  await assert.rejects(launch, /ShapeError: rmsNorm: expected gain to be \(8\), got \(4\)/);
});
