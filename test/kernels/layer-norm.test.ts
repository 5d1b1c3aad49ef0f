import assert from "node:assert/strict";
import { test } from "node:test";
import { layerNorm } from "../../src/kernels/layer-norm.ts";
import { type LayerNormCase, layerNormReference } from "../reference/layer-norm.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();

async function run(given: LayerNormCase, softwareAdapter: boolean): Promise<Float32Array> {
  const { rows, width, eps } = given;
  const x = await rig.tensor("x", [rows, width], given.x);
  const gain = await rig.tensor("gain", [width], given.gain);
  const bias = await rig.tensor("bias", [width], given.bias);
  const [y] = await rig.run((k) => [layerNorm(asFamily(k, softwareAdapter), x, { gain, bias, eps })]);
  assert.ok(y instanceof Float32Array);
  return y;
}

/** Values of `spread` around `mean`. */
function around(mean: number, spread: number, rows: number, width: number): LayerNormCase {
  return {
    rows,
    width,
    x: randomValues(rows * width, 1, spread).map((value) => value + mean),
    gain: randomValues(width, 2).map((value) => value + 1.5),
    bias: randomValues(width, 3),
    eps: 1e-5,
  };
}

const rounding = { absolute: 4e-6, relative: 4e-6, reason: "f32 rounding of values of a few units" };

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
    [2, 255],
    [3, 257],
    [33, 88],
    [7, 1408],
  ] as const) {
    test(`(${rows}, ${width}), ${family}`, async () => {
      const given = around(0.3, 2, rows, width);
      expectClose(await run(given, softwareAdapter), layerNormReference(given), rounding);
    });
  }

  for (const mean of [30, -500, 3000, 40000]) {
    test(`rows around ${mean}: the spread keeps its digits, ${family}`, async () => {
      const given = around(mean, 1, 3, 300);
      expectClose(await run(given, softwareAdapter), layerNormReference(given), rounding);
    });
  }

  test(`eps stands inside the root: nearly constant rows, ${family}`, async () => {
    for (const eps of [1e-5, 1e-6, 0.5]) {
      const given = { ...around(0, 1e-3, 4, 40), eps };
      expectClose(await run(given, softwareAdapter), layerNormReference(given), rounding);
    }
  });

  test(`eps 1e-12 counts where the variance is as small, ${family}`, async () => {
    const given = { ...around(0, 1.5e-6, 3, 70), eps: 1e-12 };
    const without = layerNormReference({ ...given, eps: 0 });
    const expected = layerNormReference(given);
    assert.ok(expected.some((value, i) => Math.abs(value - (without[i] ?? 0)) > 0.1));
    expectClose(await run(given, softwareAdapter), expected, rounding);
  });

  test(`constant rows give the bias, ${family}`, async () => {
    for (const value of [0, 1, -0.1, 1234.567]) {
      const given = { ...around(0, 0, 2, 77), x: new Float32Array(2 * 77).fill(value), eps: 1e-12 };
      expectClose(await run(given, softwareAdapter), [...randomValues(77, 3), ...randomValues(77, 3)], {
        absolute: 1e-3,
        relative: 0,
        reason: "what f32 leaves of the mean's rounding error, over sqrt(eps) = 1e-6",
      });
    }
  });

  test(`a row's bits do not depend on the other rows, ${family}`, async () => {
    const given = around(1, 3, 40, 131);
    const all = await run(given, softwareAdapter);
    const x = Float32Array.from(given.x).slice(17 * 131, 18 * 131);
    const one = await run({ ...given, rows: 1, x }, softwareAdapter);
    assert.deepEqual(one, all.slice(17 * 131, 18 * 131));
  });

  test(`more rows than one dimension holds, ${family}`, async () => {
    const given = around(0, 1, 65537, 3);
    expectClose(await run(given, softwareAdapter), layerNormReference(given), {
      ...rounding,
      absolute: 1e-4,
      reason: "f32 rounding, up to 20 times larger where three values nearly agree",
    });
  });
}

test("wrong shapes are named", async () => {
  const x = await rig.tensor("x", [2, 8], new Float32Array(16));
  const gain = await rig.tensor("gain", [4], new Float32Array(4));
  const bias = await rig.tensor("bias", [8], new Float32Array(8));
  const launch = rig.run((k) => [layerNorm(k, x, { gain, bias, eps: 1 })]);
  await assert.rejects(launch, /ShapeError: layerNorm: expected gain to be \(8\), got \(4\)/);
});
