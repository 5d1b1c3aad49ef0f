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

/** Items `firstItem` to `firstItem + items - 1` of the case, on the GPU and in f64, both with their tolerances. */
async function compare(given: WeightsCase, softwareAdapter: boolean, firstItem = 0, items = given.batch) {
  const { batch, queryTokens, keyTokens, heads, headWidth, scale } = given;
  const q = { rows: await rig.tensor("q", [batch * queryTokens, heads * headWidth], given.q), column: 0 };
  const key = { rows: await rig.tensor("k", [batch * keyTokens, heads * headWidth], given.k), column: 0 };
  const lengths = given.lengths && { keyLengths: await rig.tensor("lengths", [batch], given.lengths, "u32") };
  const { reach, values } = given.biasByDistance ?? { reach: 0, values: [] };
  const bias = given.biasByDistance && { positionBias: await rig.tensor("bias", [2 * reach + 1, heads], values) };
  const sizes = {
    batch,
    queryTokens,
    keyTokens,
    heads,
    headWidth,
    scale,
    ...lengths,
    ...bias,
    causal: given.causal ?? false,
  };
  const [weights, totals] = await rig.run((k) => {
    const made = attentionWeights(asFamily(k, softwareAdapter), q, key, sizes, { firstItem, items });
    return [made.weights, made.totals];
  });
  const expected = attentionWeightsReference(given);
  const rows = heads * queryTokens;
  // What belongs to padding, or comes after a causal query, is left as it was.
  for (const [i, weight] of (weights ?? []).entries()) {
    const item = firstItem + Math.floor(i / (rows * keyTokens));
    const seen = given.causal ? (Math.floor(i / keyTokens) % queryTokens) + 1 : keyTokens;
    if (i % keyTokens < Math.min(given.lengths?.[item] ?? keyTokens, seen)) continue;
    assert.ok(Number.isNaN(weight), `weight ${i} is of a key that is not seen, and was written: ${weight}`);
    if (weights) weights[i] = 0;
  }
  const part = (all: Float64Array, size: number) => all.subarray(firstItem * size, (firstItem + items) * size);
  // A score of s carries a rounding of s · 2^-24 for each of headWidth steps at most; exp turns it into a factor.
  // Beside the weight of 1 that every row has, one of 1e-9 is nothing.
  const relative = (8 + 4 * Math.abs(scale) * headWidth) * 2 ** -22;
  const tolerance = { absolute: 1e-9, relative, reason: `f32 sums of ${headWidth} products, then exp` };
  expectClose(weights, part(expected.weights, rows * keyTokens), tolerance);
  expectClose(totals, part(expected.totals, rows), tolerance);
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

  test(`some items of a batch, ${family}`, () => compare(makeCase([5, 6, 9, 2, 4], 1), softwareAdapter, 2, 2));

  for (const { shape, lengths } of [
    { shape: [2, 3, 5, 1, 4], lengths: [1, 4] },
    { shape: [4, 9, 33, 2, 6], lengths: [33, 1, 8, 17] },
    { shape: [3, 17, 70, 1, 5], lengths: [32, 64, 65] },
  ] as const) {
    test(`keys that count: ${lengths.join(", ")} of ${shape[2]}, ${family}`, async () => {
      const given = { ...makeCase(shape, 0.7), lengths };
      await compare(given, softwareAdapter);
      await compare(given, softwareAdapter, 1, shape[0] - 1);
      // NaN behind them is never met.
      const width = shape[3] * shape[4];
      const k = Float32Array.from(given.k, (value, i) => {
        const row = Math.floor(i / width);
        return row % shape[2] < (lengths[Math.floor(row / shape[2])] ?? 0) ? value : Number.NaN;
      });
      await compare({ ...given, k }, softwareAdapter);
    });
  }

  for (const [shape, reach] of [
    [[1, 1, 1, 1, 1], 3],
    [[2, 9, 33, 2, 5], 4],
    [[1, 37, 37, 3, 6], 16],
    [[1, 20, 70, 2, 4], 128],
    [[2, 5, 7, 1, 3], 0],
  ] as const) {
    test(`position bias reaching ${reach} in (${shape.join(", ")}), ${family}`, async () => {
      const heads = shape[3];
      const biasByDistance = { reach, values: randomValues((2 * reach + 1) * heads, 3, 4) };
      await compare({ ...makeCase(shape, 1), biasByDistance }, softwareAdapter);
      const lengths = Array.from({ length: shape[0] }, (_, item) => shape[2] - item);
      await compare({ ...makeCase(shape, -0.5), biasByDistance, lengths }, softwareAdapter, shape[0] - 1, 1);
    });
  }

  for (const [shape, lengths] of [
    [[1, 1, 1, 1, 3]],
    [[2, 9, 9, 2, 6]],
    [[1, 70, 70, 1, 5]],
    [
      [3, 33, 33, 2, 4],
      [33, 8, 20],
    ],
  ] as const) {
    test(`causal (${shape.join(", ")})${lengths ? ` of ${lengths.join(", ")}` : ""}, ${family}`, async () => {
      const given = { ...makeCase(shape, 0.7), causal: true, ...(lengths && { lengths }) };
      await compare(given, softwareAdapter);
      await compare(given, softwareAdapter, shape[0] - 1, 1);
    });
  }

  test(`the largest score may come first, last or in between, ${family}`, async () => {
    for (const place of [0, 1, 31, 32, 40, 69]) {
      const given = makeCase([1, 2, 70, 1, 1], 1);
      const k = Float32Array.from({ length: 70 }, (_, t) => -10 * Math.abs(t - place));
      await compare({ ...given, q: [1, 1.5], k }, softwareAdapter);
    }
  });
}

test("wrong shapes are named", async () => {
  const rows = await rig.tensor("rows", [4, 24], new Float32Array(96));
  const sizes = { batch: 1, queryTokens: 4, keyTokens: 4, heads: 2, headWidth: 8, scale: 1 };
  const launch = (column: number, keyTokens: number) =>
    rig.run((k) => {
      const all = { firstItem: 0, items: 1 };
      attentionWeights(k, { rows, column }, { rows, column: 0 }, { ...sizes, keyTokens }, all);
      return [];
    });
  const keyLengths = await rig.tensor("lengths", [2], [1, 1], "u32");
  const twoLengths = rig.run((k) => {
    const part = { rows, column: 0 };
    attentionWeights(k, part, part, { ...sizes, keyLengths }, { firstItem: 0, items: 1 });
    return [];
  });
  const uneven = rig.run((k) => {
    const q = { rows, column: 0 };
    attentionWeights(k, q, q, { ...sizes, keyTokens: 3, causal: true }, { firstItem: 0, items: 1 });
    return [];
  });
  await assert.rejects(uneven, /ShapeError: attention: expected as many keys as queries to be causal, got 3 and 4/);
  await assert.rejects(twoLengths, /ShapeError: attention: expected lengths to be \(1\), got \(2\)/);
  const evenBias = await rig.tensor("bias", [4, 2], new Float32Array(8));
  const withBias = rig.run((k) => {
    const part = { rows, column: 0 };
    attentionWeights(k, part, part, { ...sizes, positionBias: evenBias }, { firstItem: 0, items: 1 });
    return [];
  });
  await assert.rejects(
    withBias,
    /ShapeError: attention: expected a position bias for as many distances .* got 4 in all/,
  );
  await assert.rejects(launch(9, 4), /ShapeError: attention: expected 2 heads of 8 from column 9 within rows, got/);
  await assert.rejects(launch(0, 3), /ShapeError: attention: expected rows to be \(3, width\), got \(4, 24\)/);
});
