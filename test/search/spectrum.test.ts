import assert from "node:assert/strict";
import { test } from "node:test";
import { eigenvectors, randomRotation } from "../../src/search/spectrum.ts";
import { randomValues } from "../kernels/harness.ts";

test("eigenvectors: orthonormal, and the matrix does to each what its value says", () => {
  for (const n of [1, 2, 7, 30]) {
    const random = randomValues(n * n, n);
    // symmetric, of low rank where n is large, so that values repeat
    const rank = Math.min(n, 12);
    const matrix = Float64Array.from({ length: n * n }, (_, at) => {
      let sum = 0;
      for (let k = 0; k < rank; k++) sum += (random[Math.floor(at / n) * n + k] ?? 0) * (random[(at % n) * n + k] ?? 0);
      return sum;
    });
    const { values, vectors } = eigenvectors(matrix.slice(), n);
    const row = (i: number) => vectors.subarray(i * n, (i + 1) * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        const product = row(i).reduce((sum, value, k) => sum + value * (row(j)[k] ?? 0), 0);
        assert.ok(Math.abs(product - (i === j ? 1 : 0)) < 1e-9, `${n}: vectors ${i} and ${j}: ${product}`);
        let image = 0;
        for (let k = 0; k < n; k++) image += (matrix[j * n + k] ?? 0) * (row(i)[k] ?? 0);
        assert.ok(Math.abs(image - (values[i] ?? 9) * (row(i)[j] ?? 9)) < 1e-8, `${n}: value ${i}`);
      }
    }
  }
});

test("a rotation: orthonormal columns, always the same, spread over all rows", () => {
  const [rows, columns] = [16, 11];
  const rotation = randomRotation(rows, columns);
  assert.deepEqual(randomRotation(rows, columns), rotation);
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j < columns; j++) {
      let product = 0;
      for (let k = 0; k < rows; k++) product += (rotation[k * columns + i] ?? 0) * (rotation[k * columns + j] ?? 0);
      assert.ok(Math.abs(product - (i === j ? 1 : 0)) < 1e-12);
    }
  }
  assert.ok(rotation.every((value) => Math.abs(value) < 0.9));
});
