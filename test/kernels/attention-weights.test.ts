import assert from "node:assert/strict";
import { test } from "node:test";
import { attentionWeights } from "../../src/kernels/attention-weights.ts";
import { attentionWeightsReference, type WeightsCase } from "../reference/attention-weights.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();

type Shape = readonly [batch: number, queryTokens: number, keyTokens: number, heads: number, headWidth: number];

function makeCase([batch, queryTokens, keyTokens, heads, headWidth]: Shape, scale: number): WeightsCase {
  return {
    ...{ batch, queryTokens, keyTokens, heads, headWidth, scale },
    q: randomValues(batch * queryTokens * heads * headWidth, 1),
    k: randomValues(batch * keyTokens * heads * headWidth, 2),
  };
}

async function compare(given: WeightsCase, softwareAdapter: boolean) {
  const { batch, queryTokens, keyTokens, heads, headWidth, scale } = given;
  const q = { rows: await rig.tensor("q", [batch * queryTokens, heads * headWidth], given.q), column: 0 };
  const key = { rows: await rig.tensor("k", [batch * keyTokens, heads * headWidth], given.k), column: 0 };
  const [weights] = await rig.run((k) => [attentionWeights(asFamily(k, softwareAdapter), q, key, given)]);
  // A score of s carries a rounding of s · 2^-24 for each of headWidth steps at most; exp turns it into a factor.
  // Beside the weight of 1 that every row has, one of 1e-9 is nothing.
  const relative = (8 + 4 * Math.abs(scale) * headWidth) * 2 ** -22;
  const tolerance = { absolute: 1e-9, relative, reason: `f32 sums of ${headWidth} products, then exp` };
  expectClose(weights, attentionWeightsReference(given), tolerance);
}

for (const { softwareAdapter, family } of families) {
  for (const shape of [
    [1, 1, 1, 1, 1],
    [1, 5, 3, 2, 8],
    [2, 8, 7, 1, 16],
    [1, 9, 33, 3, 13],
    [2, 16, 64, 2, 64],
    [1, 17, 65, 2, 88],
    [3, 7, 31, 5, 6],
    [1, 33, 129, 1, 2],
  ] as const) {
    test(`(${shape.join(", ")}), ${family}`, () => compare(makeCase(shape, 0.4), softwareAdapter));
  }

  test(`scale, of either sign and large, ${family}`, async () => {
    for (const scale of [0.01, 2, -2, 20, -20]) await compare(makeCase([1, 3, 37, 2, 5], scale), softwareAdapter);
  });

  test(`the largest score may come first, last or in between, ${family}`, async () => {
    for (const place of [0, 1, 31, 32, 40, 69]) {
      const given = makeCase([1, 2, 70, 1, 1], 1);
      const k = Float32Array.from({ length: 70 }, (_, t) => -10 * Math.abs(t - place));
      await compare({ ...given, q: [1, 1.5], k }, softwareAdapter);
    }
  });
}

test("parts of one fused product", async () => {
  const given = makeCase([1, 6, 6, 2, 3], 0.5);
  const fused = new Float32Array(6 * 15).fill(Number.NaN);
  for (let row = 0; row < 6; row++) {
    for (let c = 0; c < 6; c++) {
      fused[row * 15 + 2 + c] = given.k[row * 6 + c] ?? 0;
      fused[row * 15 + 8 + c] = given.q[row * 6 + c] ?? 0;
    }
  }
  const rows = await rig.tensor("fused", [6, 15], fused);
  const [weights] = await rig.run((k) => [attentionWeights(k, { rows, column: 8 }, { rows, column: 2 }, given)]);
  expectClose(weights, attentionWeightsReference(given), { absolute: 1e-9, relative: 1e-5, reason: "f32 sums of 3" });
});

test("wrong shapes are named", async () => {
  const rows = await rig.tensor("rows", [4, 24], new Float32Array(96));
  const sizes = { batch: 1, queryTokens: 4, keyTokens: 4, heads: 2, headWidth: 8, scale: 1 };
  const launch = (column: number, keyTokens: number) =>
    rig.run((k) => [attentionWeights(k, { rows, column }, { rows, column: 0 }, { ...sizes, keyTokens })]);
  await assert.rejects(launch(9, 4), /ShapeError: attention: expected 2 heads of 8 from column 9 within rows, got/);
  await assert.rejects(launch(0, 3), /ShapeError: attention: expected rows to be \(3, width\), got \(4, 24\)/);
});
