import assert from "node:assert/strict";
import { test } from "node:test";
import { cosines, decodeVectors, vectorValues } from "../../src/search/similarity.ts";
import { fromF16Bits, packF16, randomValues } from "../kernels/harness.ts";

test("the largest dot product of each image, for every text", () => {
  for (const [images, queries, width] of [
    [1, 1, 1],
    [3, 2, 4],
    [4, 5, 7],
    [2, 32, 10],
  ] as const) {
    const values = randomValues(images * queries * width, 1);
    const texts = [2, 3, 4].map((seed) => randomValues(width, seed));
    const got = cosines(values, { images, queries, width }, texts);
    assert.equal(got.length, 3 * images);
    for (const [t, text] of texts.entries()) {
      for (let image = 0; image < images; image++) {
        const products = Array.from({ length: queries }, (_, q) =>
          text.reduce((sum, value, i) => sum + value * (values[(image * queries + q) * width + i] ?? Number.NaN), 0),
        );
        const gap = Math.abs((got[t * images + image] ?? Number.NaN) - Math.max(...products));
        assert.ok(gap <= 1e-6, `text ${t}, image ${image}: ${gap}`);
      }
    }
  }
});

test("a score does not depend on the other texts", () => {
  const sizes = { images: 5, queries: 3, width: 11 };
  const values = randomValues(5 * 3 * 11, 6);
  const texts = Array.from({ length: 9 }, (_, i) => randomValues(11, 20 + i));
  const all = cosines(values, sizes, texts);
  for (let count = 1; count <= 9; count++) {
    assert.deepEqual(cosines(values, sizes, texts.slice(0, count)), all.slice(0, count * 5), `${count} texts`);
    assert.deepEqual(cosines(values, sizes, texts.slice(count - 1, count)), all.slice((count - 1) * 5, count * 5));
  }
});

test("negative cosines are not lifted to zero", () => {
  assert.deepEqual(
    [...cosines(Float32Array.of(-1, 0, -0.5, 0), { images: 1, queries: 2, width: 2 }, [Float32Array.of(1, 0)])],
    [-0.5],
  );
});

test("every f16 there is, and bytes that do not begin at a word", () => {
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const values = decodeVectors(new Uint8Array(bits.buffer), "f16");
  assert.deepEqual(
    [...values],
    [...bits].map((half) => fromF16Bits(half)),
  );
  const shifted = new Uint8Array(9);
  shifted.set(new Uint8Array(Float32Array.of(1.5, -2).buffer), 1);
  assert.deepEqual([...decodeVectors(shifted.subarray(1), "f32")], [1.5, -2]);
  const halves = new Uint8Array(packF16([0.5, -1, 3, 0]).buffer);
  assert.deepEqual([...vectorValues({ type: "f16", shape: [1, 3], bytes: halves })], [0.5, -1, 3]);
});
