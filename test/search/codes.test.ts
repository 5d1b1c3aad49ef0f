// Codes: the basis keeps products, estimates are as far off as is said, and what is raised by their error is hardly exceeded.

import assert from "node:assert/strict";
import { test } from "node:test";
import { codeScan } from "../../src/search/code-programs.ts";
import { type CodeBasis, type CodeBits, codeQuery, codeSizes, Encoder, fitBasis } from "../../src/search/codes.ts";
import { wasmMemory } from "../../src/search/wasm.ts";
import { unevenVectors, unitVector } from "./some-vectors.ts";

const images = 300;

/** What a scan makes of each image, every vector of which but those of one slot is left out. */
function scanned(basis: CodeBasis, values: Float32Array, query: Float32Array, deviations: number, slot: number) {
  const { blocks, codeBytes, imageCodes, imageFactors } = codeSizes(basis);
  const size = basis.queries * basis.width;
  const at = { tables: 0, starts: 32768, codes: 65536, factors: 65536 + images * imageCodes };
  const out = at.factors + images * imageFactors;
  const memory = wasmMemory(out + images * 4);
  const encoder = new Encoder(basis);
  for (let i = 0; i < images; i++) {
    encoder.encode(
      values.subarray(i * size, (i + 1) * size),
      new Uint8Array(memory.buffer, at.codes + i * imageCodes, imageCodes),
      new Uint16Array(memory.buffer, at.factors + i * imageFactors, imageFactors / 2),
    );
  }
  const { tables, starts, scale, offset } = codeQuery(basis, query, deviations);
  new Uint8Array(memory.buffer).set(tables, at.tables);
  const only = starts.map((start, i) => (i === slot ? start : Number.NEGATIVE_INFINITY));
  new Float32Array(memory.buffer).set(only, at.starts / 4);
  codeScan(memory)({ ...at, out, images, blocks, bytes: codeBytes, scale, offset });
  return new Float32Array(memory.buffer, out, images).slice();
}

/** Root mean square of the errors of estimates, and of those errors where one deviation is one. */
function errorsOf(bits: CodeBits, queries: number, width: number) {
  const values = unevenVectors(images, queries, width, 7);
  const basis = fitBasis(values, queries, width, bits);
  let [squares, normal, above, count] = [0, 0, 0, 0];
  for (const seed of [1, 2, 3, 4]) {
    const query = unitVector(width, seed);
    for (let slot = 0; slot < queries; slot += 4) {
      const estimates = scanned(basis, values, query, 0, slot);
      const raised = scanned(basis, values, query, 1, slot);
      for (let i = 0; i < images; i++) {
        const from = (i * queries + slot) * width;
        let cosine = 0;
        for (let k = 0; k < width; k++) cosine += (values[from + k] ?? 0) * (query[k] ?? 0);
        const error = (estimates[i] ?? 0) - cosine;
        squares += error * error;
        normal += (error / ((raised[i] ?? 0) - (estimates[i] ?? 0))) ** 2;
        if (cosine > (estimates[i] ?? 0) + 3 * ((raised[i] ?? 0) - (estimates[i] ?? 0))) above += 1;
        count += 1;
      }
    }
  }
  return { error: Math.sqrt(squares / count), normal: Math.sqrt(normal / count), above: above / count };
}

for (const [bits, most] of [
  [1, 0.04],
  [2, 0.02],
] as const) {
  test(`${bits} bits a value: the error is as predicted, and rarely three times that`, () => {
    const { error, normal, above } = errorsOf(bits, 18, 64);
    assert.ok(error < most, `${error}`);
    assert.ok(normal > 0.85 && normal < 1.1, `predicted errors are ${normal} times too small`);
    assert.ok(above < 0.004, `${above} of the cosines lie above three deviations`);
  });
}

test("the basis: decoder and encoder keep every product, centres are the means of the slots", () => {
  const [queries, width] = [3, 11];
  const values = unevenVectors(50, queries, width, 3);
  const { codeWidth, centres, encoder, decoder } = fitBasis(values, queries, width, 2);
  assert.equal(codeWidth, 16);
  for (let i = 0; i < width; i++) {
    for (let j = 0; j < width; j++) {
      let sum = 0;
      for (let row = 0; row < codeWidth; row++)
        sum += (decoder[row * width + i] ?? 0) * (encoder[row * width + j] ?? 0);
      assert.ok(Math.abs(sum - (i === j ? 1 : 0)) < 1e-4, `D'E at ${i}, ${j} is ${sum}`);
    }
  }
  for (let at = 0; at < queries * width; at++) {
    let mean = 0;
    for (let image = 0; image < 50; image++) mean += (values[image * queries * width + at] ?? 0) / 50;
    assert.ok(Math.abs(mean - (centres[at] ?? 9)) < 1e-6);
  }
});

test("images that do not differ, and vectors of zeros, are coded too", () => {
  const same = new Float32Array(4 * 2 * 8).map((_, i) => (i % 8 === 0 ? 1 : 0));
  const basis = fitBasis(same, 2, 8, 2);
  const { imageCodes, imageFactors } = codeSizes(basis);
  const factors = new Uint16Array(imageFactors / 2);
  new Encoder(basis).encode(same.subarray(0, 16), new Uint8Array(imageCodes), factors);
  new Encoder(basis).encode(new Float32Array(16), new Uint8Array(imageCodes), factors);
  const finite = new Float32Array(Uint32Array.from(factors, (half) => half << 16).buffer);
  assert.ok(finite.every(Number.isFinite), `${finite}`);
  const { tables, offset } = codeQuery(basis, same.subarray(0, 8), 3);
  assert.ok(tables.every((entry) => entry <= 127));
  assert.ok(Number.isFinite(offset));
});
