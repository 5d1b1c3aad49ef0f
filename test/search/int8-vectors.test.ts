import assert from "node:assert/strict";
import { test } from "node:test";
import { quantizeVectors, unitVectors } from "../../src/search/int8-vectors.ts";
import { unitVector } from "./some-vectors.ts";

test("vectors come back with length one, zeros as zeros, and cosines move by what the help says", () => {
  const width = 256;
  let [squares, largest] = [0, 0];
  for (let seed = 0; seed < 50; seed++) {
    const vector = unitVector(width, seed);
    const back = new Float32Array(width);
    unitVectors(quantizeVectors(vector, width), width, back);
    assert.ok(Math.abs(Math.hypot(...back) - 1) < 1e-6);
    const query = unitVector(width, seed + 1000);
    const error = query.reduce((sum, value, i) => sum + value * ((back[i] ?? 0) - (vector[i] ?? 0)), 0);
    squares += error * error;
    largest = Math.max(largest, Math.abs(error));
  }
  assert.ok(Math.sqrt(squares / 50) < 0.0005, `${Math.sqrt(squares / 50)}`);
  assert.ok(largest < 0.0015, `${largest}`);
  const rows = quantizeVectors(Float32Array.of(0, 0, 0.5, -1), 2);
  assert.deepEqual([...rows], [0, 0, 64, -127]);
  const back = new Float32Array(4);
  unitVectors(rows, 2, back);
  assert.deepEqual([...back.subarray(0, 2)], [0, 0]);
});
