import assert from "node:assert/strict";
import { test } from "node:test";
import { logSumExp } from "../../src/kernels/log-sum-exp.ts";
import { vocabularyChunks } from "../../src/kernels/vocabulary-chunks.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();

async function run(rows: number, vocabulary: number, chunk: number, values: Float32Array, softwareAdapter: boolean) {
  const cut = { chunk, chunks: Math.ceil(vocabulary / chunk) };
  const logits = await rig.tensor("logits", [rows, vocabulary], values);
  const [partials] = await rig.run((k) => [logSumExp(asFamily(k, softwareAdapter), logits, cut)]);
  const highs: number[] = [];
  const sums: number[] = [];
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < cut.chunks; c++) {
      const part = values.subarray(
        row * vocabulary + c * chunk,
        row * vocabulary + Math.min(vocabulary, (c + 1) * chunk),
      );
      const high = Math.max(...part);
      highs.push(high);
      sums.push(part.reduce((sum, value) => sum + Math.exp(value - high), 0));
    }
  }
  assert.deepEqual(
    [...(partials ?? [])].filter((_, i) => i % 2 === 0),
    highs,
    "maxima are exact",
  );
  expectClose(
    [...(partials ?? [])].filter((_, i) => i % 2 === 1),
    sums,
    {
      absolute: 0,
      relative: 1e-5,
      reason: "f32 exp, and sums of at most some thousand terms",
    },
  );
}

for (const { softwareAdapter, family } of families) {
  for (const [rows, vocabulary, chunk] of [
    [1, 1, 1024],
    [2, 7, 1024],
    [3, 64, 64],
    [2, 65, 64],
    [2, 129, 64],
    [1, 1023, 1024],
    [2, 1024, 1024],
    [2, 1025, 1024],
    [1, 5003, 1024],
  ] as const) {
    test(`${rows} rows of ${vocabulary} ids in chunks of ${chunk}, ${family}`, async () => {
      await run(rows, vocabulary, chunk, randomValues(rows * vocabulary, vocabulary, 6), softwareAdapter);
    });
  }

  test(`logits around 1000, -1000 and all below zero do not overflow, ${family}`, async () => {
    for (const mean of [1000, -1000, -20]) {
      await run(
        2,
        300,
        128,
        randomValues(600, 5, 12).map((value) => value + mean),
        softwareAdapter,
      );
    }
  });
}

test("the cut covers every vocabulary and bounds the chunk heads of an item", () => {
  for (const vocabulary of [1, 41, 1024, 1025, 50272, 50304, 256206]) {
    for (const beams of [1, 5, 32]) {
      const { chunk, chunks } = vocabularyChunks(vocabulary, beams);
      assert.ok(chunk * chunks >= vocabulary && chunk * (chunks - 1) < vocabulary && beams * chunks <= 1024);
    }
  }
});
