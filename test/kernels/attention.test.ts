import assert from "node:assert/strict";
import { test } from "node:test";
import { attention } from "../../src/kernels/attention.ts";
import { type AttentionCase, attentionReference } from "../reference/attention.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();

function makeCase(
  [batch, queryTokens, keyTokens, heads, headWidth]: readonly [number, number, number, number, number],
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

async function separate(given: AttentionCase, softwareAdapter: boolean): Promise<Float32Array> {
  const { batch, queryTokens, keyTokens, heads, headWidth } = given;
  const tensor = async (name: string, tokens: number, values: ArrayLike<number>) => ({
    rows: await rig.tensor(name, [batch * tokens, heads * headWidth], values),
    column: 0,
  });
  const q = await tensor("q", queryTokens, given.q);
  const k = await tensor("k", keyTokens, given.k);
  const v = await tensor("v", keyTokens, given.v);
  const lengths = given.lengths && { keyLengths: await rig.tensor("lengths", [batch], given.lengths, "u32") };
  const [y] = await rig.run((recorder) => [
    attention(asFamily(recorder, softwareAdapter), q, k, v, { ...given, ...lengths }),
  ]);
  assert.ok(y instanceof Float32Array);
  return y;
}

/** Scores of up to |score| carry a rounding of score · 2^-24 times a few, and the exponential turns it into a factor. */
function tolerance(score: number) {
  const relative = (8 + 4 * score) * 2 ** -22;
  return { absolute: relative, relative, reason: `f32 scores up to ${score}, mixing values of at most 1` };
}

for (const { softwareAdapter, family } of families) {
  for (const shape of [
    [1, 1, 1, 1, 1],
    [1, 5, 3, 2, 8],
    [2, 8, 4, 1, 16],
    [1, 9, 5, 3, 12],
    [2, 16, 17, 2, 64],
    [1, 17, 33, 2, 88],
    [3, 32, 31, 2, 80],
    [1, 33, 8, 1, 128],
    [1, 3, 40, 1, 192],
    [2, 7, 6, 3, 7],
    [1, 12, 13, 2, 10],
    [2, 5, 9, 5, 33],
  ] as const) {
    test(`(${shape.join(", ")}), ${family}`, async () => {
      const given = makeCase(shape, 1 / Math.sqrt(shape[4]));
      expectClose(await separate(given, softwareAdapter), attentionReference(given), tolerance(3));
    });
  }

  test(`scale and large scores of either sign, ${family}`, async () => {
    for (const scale of [0.01, 1, 40, -40]) {
      const given = makeCase([1, 11, 29, 2, 24], scale);
      expectClose(await separate(given, softwareAdapter), attentionReference(given), tolerance(12 * Math.abs(scale)));
    }
  });

  test(`the largest score may come first, last or rise all the way, ${family}`, async () => {
    for (const order of [(t: number) => t, (t: number) => -t, (t: number) => Math.abs(t - 11)]) {
      const given = makeCase([1, 2, 23, 1, 4], 1);
      const k = Float32Array.from({ length: 23 * 4 }, (_, i) => (i % 4 === 0 ? 9 * order(Math.floor(i / 4)) : 0));
      const q = Float32Array.of(1, 0, 0, 0, -0.5, 0, 0, 0);
      const steep = { ...given, q, k };
      expectClose(await separate(steep, softwareAdapter), attentionReference(steep), tolerance(200));
    }
  });

  for (const headWidth of [6, 8, 88]) {
    test(`parts of one fused product equal separate tensors, head width ${headWidth}, ${family}`, async () => {
      const heads = 3;
      const width = heads * headWidth;
      const given = makeCase([2, 19, 19, heads, headWidth], 0.2);
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
      const [y] = await rig.run((k) => [attention(asFamily(k, softwareAdapter), part(1), part(2), part(0), given)]);
      expectClose(y, attentionReference(given), tolerance(4));
      assert.deepEqual(y, await separate(given, softwareAdapter));
    });
  }

  test(`a query's bits depend neither on the other queries nor on the batch, ${family}`, async () => {
    const given = makeCase([3, 21, 13, 2, 88], 0.1);
    const width = 2 * 88;
    const all = await separate(given, softwareAdapter);
    const item = 2;
    const token = 18;
    const row = item * 21 + token;
    const one = await separate(
      {
        ...given,
        batch: 1,
        queryTokens: 1,
        q: Float32Array.from(given.q).slice(row * width, (row + 1) * width),
        k: Float32Array.from(given.k).slice(item * 13 * width, (item + 1) * 13 * width),
        v: Float32Array.from(given.v).slice(item * 13 * width, (item + 1) * 13 * width),
      },
      softwareAdapter,
    );
    assert.deepEqual(one, all.slice(row * width, (row + 1) * width));
  });

  test(`causal: a row sees those before it, whatever comes behind, ${family}`, async () => {
    const given = { ...makeCase([2, 19, 19, 2, 7], 0.4), causal: true };
    const all = await separate(given, softwareAdapter);
    expectClose(all, attentionReference(given), tolerance(3));
    const width = 14;
    const cut = (values: ArrayLike<number>) =>
      Float32Array.from(values, (value, i) => (Math.floor(i / width) % 19 < 11 ? value : Number.NaN));
    const begun = await separate({ ...given, q: cut(given.q), k: cut(given.k), v: cut(given.v) }, softwareAdapter);
    for (const item of [0, 1]) {
      const first = item * 19 * width;
      assert.deepEqual(begun.slice(first, first + 11 * width), all.slice(first, first + 11 * width), `item ${item}`);
    }
  });

  test(`a row's bits do not depend on how much padding follows, ${family}`, async () => {
    const lengths = [5, 13, 1];
    const padded = { ...makeCase([3, 4, 16, 2, 7], 0.4), lengths };
    expectClose(await separate(padded, softwareAdapter), attentionReference(padded), tolerance(3));
    const all = await separate(padded, softwareAdapter);
    const width = 14;
    for (const [item, length] of lengths.entries()) {
      const alone = (values: ArrayLike<number>) =>
        Float32Array.from(values).slice(item * 16 * width, (item * 16 + length) * width);
      const one = {
        ...makeCase([1, 4, length, 2, 7], 0.4),
        q: Float32Array.from(padded.q).slice(item * 4 * width, (item + 1) * 4 * width),
        k: alone(padded.k),
        v: alone(padded.v),
      };
      assert.deepEqual(
        await separate(one, softwareAdapter),
        all.slice(item * 4 * width, (item + 1) * 4 * width),
        `item ${item}`,
      );
    }
  });
}

test("the tokens of larger images, and more weights than are kept at once: (3, 677, 677, 16, 1)", async () => {
  const given = makeCase([3, 677, 677, 16, 1], 1);
  expectClose(await separate(given, rig.gpu.softwareAdapter), attentionReference(given), tolerance(3));
});
