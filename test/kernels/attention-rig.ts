// What every kernel of attention must do, beside the reference in f64.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Recorder } from "../../src/gpu/recorder.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import type { AttentionSizes, Columns } from "../../src/kernels/attention-sizes.ts";
import { type AttentionCase, attentionReference } from "../reference/attention.ts";
import { expectClose, type Rig, randomValues } from "./harness.ts";

/** A kernel of attention. */
export type Attend = (k: Recorder, q: Columns, key: Columns, value: Columns, sizes: AttentionSizes) => Tensor;

type Shape = readonly [batch: number, queryTokens: number, keyTokens: number, heads: number, headWidth: number];

export function attentionCase(
  [batch, queryTokens, keyTokens, heads, headWidth]: Shape,
  scale: number,
  size = 1,
): AttentionCase {
  const width = heads * headWidth;
  return {
    batch,
    queryTokens,
    keyTokens,
    heads,
    headWidth,
    scale,
    q: randomValues(batch * queryTokens * width, 1, size),
    k: randomValues(batch * keyTokens * width, 2, size),
    v: randomValues(batch * keyTokens * width, 3),
  };
}

/** Scores of up to |score| carry a rounding of score · 2^-24 times a few, and the exponential turns it into a factor. */
export function tolerance(score: number) {
  const relative = (8 + 4 * score) * 2 ** -22;
  return { absolute: relative, relative, reason: `f32 scores up to ${score}, mixing values of at most 1` };
}

/** The kernel on separate tensors. */
export async function attended(rig: Rig, attend: Attend, given: AttentionCase): Promise<Float32Array> {
  const { batch, queryTokens, keyTokens, heads, headWidth, scale, causal = false } = given;
  const tensor = async (name: string, tokens: number, values: ArrayLike<number>) => ({
    rows: await rig.tensor(name, [batch * tokens, heads * headWidth], values),
    column: 0,
  });
  const q = await tensor("q", queryTokens, given.q);
  const k = await tensor("k", keyTokens, given.k);
  const v = await tensor("v", keyTokens, given.v);
  const lengths = given.lengths && { keyLengths: await rig.tensor("lengths", [batch], given.lengths, "u32") };
  const { reach, values } = given.biasByDistance ?? { reach: 0, values: [] };
  const bias = given.biasByDistance && { positionBias: await rig.tensor("bias", [2 * reach + 1, heads], values) };
  const sizes = { batch, queryTokens, keyTokens, heads, headWidth, scale, causal, ...lengths, ...bias };
  const [y] = await rig.run((recorder) => [attend(recorder, q, k, v, sizes)]);
  assert.ok(y instanceof Float32Array);
  return y;
}

/** Declares the tests. @param widths of heads beside 1, 7 and 8, each perhaps a kernel to compile */
export function testAttention(rig: Rig, attend: Attend, widths: readonly number[]): void {
  const ask = (given: AttentionCase) => attended(rig, attend, given);

  const shapes: Shape[] = [
    [1, 1, 1, 1, 1],
    [1, 5, 3, 2, 8],
    [2, 8, 31, 1, 8],
    [1, 9, 32, 3, 8],
    [2, 33, 65, 2, 8],
    [1, 65, 8, 1, 8],
    [2, 7, 6, 3, 7],
    ...widths.map((width): Shape => [2, 17, 35, 2, width]),
  ];
  for (const shape of shapes) {
    test(`(${shape.join(", ")})`, async () => {
      const given = attentionCase(shape, 1 / Math.sqrt(shape[4]));
      expectClose(await ask(given), attentionReference(given), tolerance(3));
    });
  }

  test("scale and large scores of either sign", async () => {
    for (const scale of [0.01, 1, 40, -40]) {
      const given = attentionCase([1, 11, 69, 2, 8], scale);
      expectClose(await ask(given), attentionReference(given), tolerance(12 * Math.abs(scale)));
    }
  });

  test("the largest score may come first, last, rise all the way or stand beside the end of a block", async () => {
    for (const order of [
      (t: number) => t,
      (t: number) => -t,
      ...[11, 31, 32, 63, 64].map((place) => (t: number) => -Math.abs(t - place)),
    ]) {
      const given = attentionCase([1, 2, 70, 1, 8], 1);
      const k = Float32Array.from({ length: 70 * 8 }, (_, i) => (i % 8 === 0 ? 5 * order(Math.floor(i / 8)) : 0));
      const q = Float32Array.of(1, 0, 0, 0, 0, 0, 0, 0, -0.5, 0, 0, 0, 0, 0, 0, 0);
      const steep = { ...given, q, k };
      expectClose(await ask(steep), attentionReference(steep), tolerance(350));
    }
  });

  for (const headWidth of [6, 8]) {
    test(`parts of one fused product equal separate tensors, head width ${headWidth}`, async () => {
      const heads = 3;
      const width = heads * headWidth;
      const given = attentionCase([2, 19, 19, heads, headWidth], 0.2);
      // Columns: one of nothing, v, q, k.
      const stride = 4 + 3 * width;
      const fused = new Float32Array(2 * 19 * stride).fill(Number.NaN);
      for (let row = 0; row < 2 * 19; row++) {
        for (const [i, part] of [given.v, given.q, given.k].entries()) {
          for (let c = 0; c < width; c++) fused[row * stride + 4 + i * width + c] = part[row * width + c] ?? 0;
        }
      }
      const rows = await rig.tensor("fused", [2 * 19, stride], fused);
      const part = (i: number) => ({ rows, column: 4 + i * width });
      const [y] = await rig.run((k) => [attend(k, part(1), part(2), part(0), given)]);
      expectClose(y, attentionReference(given), tolerance(4));
      assert.deepEqual(y, await ask(given));
    });
  }

  test("columns that begin between fours equal those that do not", async () => {
    const given = attentionCase([1, 9, 9, 1, 8], 0.3);
    const shifted = async (name: string, values: ArrayLike<number>) => {
      const cells = new Float32Array(9 * 11).fill(Number.NaN);
      for (let i = 0; i < values.length; i++) cells[Math.floor(i / 8) * 11 + 3 + (i % 8)] = values[i] ?? 0;
      return { rows: await rig.tensor(name, [9, 11], cells), column: 3 };
    };
    const [q, k, v] = [await shifted("q", given.q), await shifted("k", given.k), await shifted("v", given.v)];
    const [y] = await rig.run((recorder) => [attend(recorder, q, k, v, given)]);
    assert.deepEqual(y, await ask(given));
  });

  test("a query's bits depend neither on the other queries nor on the batch", async () => {
    const [queryTokens, keyTokens, width] = [37, 70, 16];
    const given = attentionCase([3, queryTokens, keyTokens, 2, 8], 0.1);
    const all = await ask(given);
    const item = 2;
    for (const token of [0, 18, 34, 36]) {
      const row = item * queryTokens + token;
      const one = await ask({
        ...given,
        batch: 1,
        queryTokens: 1,
        q: Float32Array.from(given.q).slice(row * width, (row + 1) * width),
        k: Float32Array.from(given.k).slice(item * keyTokens * width, (item + 1) * keyTokens * width),
        v: Float32Array.from(given.v).slice(item * keyTokens * width, (item + 1) * keyTokens * width),
      });
      assert.deepEqual(one, all.slice(row * width, (row + 1) * width), `query ${token}`);
    }
  });

  for (const [shape, lengths] of [
    [[1, 1, 1, 1, 3]],
    [[1, 70, 70, 1, 8]],
    [
      [3, 33, 33, 2, 8],
      [33, 8, 20],
    ],
  ] as const) {
    test(`causal (${shape.join(", ")})${lengths ? ` of ${lengths.join(", ")}` : ""}`, async () => {
      const given = { ...attentionCase(shape, 0.7), causal: true, ...(lengths && { lengths }) };
      expectClose(await ask(given), attentionReference(given), tolerance(6));
    });
  }

  test("causal: a row sees those before it, whatever comes behind", async () => {
    const given = { ...attentionCase([2, 19, 19, 2, 8], 0.4), causal: true };
    const all = await ask(given);
    const width = 16;
    const cut = (values: ArrayLike<number>) =>
      Float32Array.from(values, (value, i) => (Math.floor(i / width) % 19 < 11 ? value : Number.NaN));
    const begun = await ask({ ...given, q: cut(given.q), k: cut(given.k), v: cut(given.v) });
    for (const item of [0, 1]) {
      const first = item * 19 * width;
      assert.deepEqual(begun.slice(first, first + 11 * width), all.slice(first, first + 11 * width), `item ${item}`);
    }
  });

  test("a row's bits do not depend on how much padding follows, nor on what is in it", async () => {
    const [lengths, width, keyTokens] = [[32, 69, 1], 14, 70];
    const padded = { ...attentionCase([3, 4, keyTokens, 2, 7], 0.4), lengths };
    const unread = (values: ArrayLike<number>) =>
      Float32Array.from(values, (value, i) => {
        const row = Math.floor(i / width);
        return row % keyTokens < (lengths[Math.floor(row / keyTokens)] ?? 0) ? value : Number.NaN;
      });
    const all = await ask({ ...padded, k: unread(padded.k), v: unread(padded.v) });
    expectClose(all, attentionReference(padded), tolerance(3));
    for (const [item, length] of lengths.entries()) {
      const alone = (values: ArrayLike<number>) =>
        Float32Array.from(values).slice(item * keyTokens * width, (item * keyTokens + length) * width);
      const one = {
        ...attentionCase([1, 4, length, 2, 7], 0.4),
        q: Float32Array.from(padded.q).slice(item * 4 * width, (item + 1) * 4 * width),
        k: alone(padded.k),
        v: alone(padded.v),
      };
      assert.deepEqual(await ask(one), all.slice(item * 4 * width, (item + 1) * 4 * width), `item ${item}`);
    }
  });

  for (const [shape, reach] of [
    [[1, 1, 1, 1, 8], 3],
    [[2, 37, 70, 3, 8], 16],
    [[1, 20, 70, 2, 8], 128],
    [[2, 5, 7, 1, 8], 0],
  ] as const) {
    test(`position bias reaching ${reach} in (${shape.join(", ")})`, async () => {
      const heads = shape[3];
      const biasByDistance = { reach, values: randomValues((2 * reach + 1) * heads, 3, 4) };
      const given = { ...attentionCase(shape, 1), biasByDistance };
      expectClose(await ask(given), attentionReference(given), tolerance(12));
      const lengths = Array.from({ length: shape[0] }, (_, item) => shape[2] - item);
      const padded = { ...given, lengths };
      expectClose(await ask(padded), attentionReference(padded), tolerance(12));
    });
  }
}
