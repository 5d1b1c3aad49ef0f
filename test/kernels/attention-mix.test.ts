import assert from "node:assert/strict";
import { test } from "node:test";
import { attentionMix } from "../../src/kernels/attention-mix.ts";
import { attentionMixReference, type MixCase } from "../reference/attention-mix.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();

type Shape = readonly [batch: number, queryTokens: number, keyTokens: number, heads: number, headWidth: number];

function makeCase([batch, queryTokens, keyTokens, heads, headWidth]: Shape): MixCase {
  return {
    ...{ batch, queryTokens, keyTokens, heads, headWidth },
    weights: randomValues(batch * heads * queryTokens * keyTokens, 1),
    totals: randomValues(batch * heads * queryTokens, 2).map((value) => value + 2),
    v: randomValues(batch * keyTokens * heads * headWidth, 3),
  };
}

const untouched = 77;

/** Items `firstItem` to `firstItem + items - 1` of the case; the rows of the others must stay as they were. */
async function compare(given: MixCase, softwareAdapter: boolean, firstItem = 0, items = given.batch): Promise<void> {
  const { batch, queryTokens, keyTokens, heads, headWidth } = given;
  const rows = heads * queryTokens;
  const part = (all: ArrayLike<number>, size: number) =>
    Float32Array.from(all).subarray(firstItem * size, (firstItem + items) * size);
  const count = batch * queryTokens * heads * headWidth;
  const shape = [batch * queryTokens, heads * headWidth];
  const y = await rig.tensor("y", shape, new Float32Array(count).fill(untouched));
  const weights = await rig.tensor("w", [items, heads, queryTokens, keyTokens], part(given.weights, rows * keyTokens));
  const totals = await rig.tensor("totals", [items, heads, queryTokens], part(given.totals, rows));
  const value = { rows: await rig.tensor("v", [batch * keyTokens, heads * headWidth], given.v), column: 0 };
  const lengths = given.lengths && { keyLengths: await rig.tensor("lengths", [batch], given.lengths, "u32") };
  await rig.run((k) => {
    const sizes = { ...given, ...lengths, scale: Number.NaN };
    attentionMix(asFamily(k, softwareAdapter), { firstItem, items, weights, totals }, value, sizes, y);
    return [];
  });
  const size = queryTokens * heads * headWidth;
  const expected = attentionMixReference(given).map((value, i) => {
    const item = Math.floor(i / size);
    return item >= firstItem && item < firstItem + items ? value : untouched;
  });
  const reason = `f32 sum of ${keyTokens} products of at most 1`;
  expectClose(await rig.read(y), expected, { absolute: (keyTokens + 4) * 2 ** -23, relative: 2 ** -21, reason });
}

for (const { softwareAdapter, family } of families) {
  for (const shape of [
    [1, 1, 1, 1, 1],
    [1, 5, 3, 2, 8],
    [2, 8, 7, 1, 31],
    [1, 9, 33, 3, 33],
    [2, 16, 5, 2, 64],
    [1, 17, 65, 2, 88],
    [3, 7, 31, 5, 6],
    [1, 3, 9, 2, 128],
    [1, 4, 2, 2, 131],
    [2, 33, 8, 1, 300],
  ] as const) {
    test(`(${shape.join(", ")}), ${family}`, () => compare(makeCase(shape), softwareAdapter));
  }

  for (const { shape, lengths } of [
    { shape: [2, 3, 5, 1, 4], lengths: [1, 4] },
    { shape: [4, 9, 33, 2, 6], lengths: [33, 1, 8, 17] },
  ] as const) {
    test(`keys that count: ${lengths.join(", ")} of ${shape[2]}, ${family}`, async () => {
      const made = makeCase(shape);
      const [, queryTokens, keyTokens, heads, headWidth] = shape;
      const counts = (item: number, key: number) => key < (lengths[item] ?? 0);
      // NaN behind them is never met: neither the weights, which nothing wrote, nor the values.
      const weights = Float32Array.from(made.weights, (value, i) =>
        counts(Math.floor(i / (heads * queryTokens * keyTokens)), i % keyTokens) ? value : Number.NaN,
      );
      const v = Float32Array.from(made.v, (value, i) => {
        const row = Math.floor(i / (heads * headWidth));
        return counts(Math.floor(row / keyTokens), row % keyTokens) ? value : Number.NaN;
      });
      const given = { ...made, weights, v, lengths };
      await compare(given, softwareAdapter);
      await compare(given, softwareAdapter, 1, shape[0] - 1);
    });
  }

  for (const [shape, lengths] of [
    [[2, 9, 9, 2, 6]],
    [[1, 37, 37, 1, 70]],
    [
      [3, 20, 20, 2, 4],
      [20, 8, 13],
    ],
  ] as const) {
    test(`causal (${shape.join(", ")})${lengths ? ` of ${lengths.join(", ")}` : ""}, ${family}`, async () => {
      const made = makeCase(shape);
      const tokens = shape[1];
      // NaN is never met where nothing was written, nor in the values that padding has.
      const weights = Float32Array.from(made.weights, (value, i) =>
        i % tokens <= Math.floor(i / tokens) % tokens ? value : Number.NaN,
      );
      const given = { ...made, weights, causal: true, ...(lengths && { lengths }) };
      await compare(given, softwareAdapter);
      await compare(given, softwareAdapter, shape[0] - 1, 1);
    });
  }

  test(`some items of a batch, ${family}`, () => compare(makeCase([5, 6, 9, 2, 4]), softwareAdapter, 2, 2));
}

test("wrong shapes are named", async () => {
  const weights = await rig.tensor("weights", [1, 2, 4, 4], new Float32Array(32));
  const totals = await rig.tensor("totals", [1, 2, 4], new Float32Array(8));
  const rows = await rig.tensor("v", [4, 16], new Float32Array(64));
  const y = await rig.tensor("y", [4, 15], new Float32Array(60));
  const sizes = { batch: 1, queryTokens: 4, keyTokens: 4, heads: 2, headWidth: 8, scale: 1 };
  const launch = rig.run((k) => {
    attentionMix(k, { firstItem: 0, items: 1, weights, totals }, { rows, column: 0 }, sizes, y);
    return [];
  });
  await assert.rejects(launch, /ShapeError: attention: expected y to be \(4, 16\), got \(4, 15\)/);
});
