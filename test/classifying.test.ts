// Labels on stages that only say what they were asked: templates, their mean, and the softmax.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as after } from "node:timers/promises";
import { imageVector, labelScores, labelVector, scoresOfRead } from "../src/classifying.ts";
import type { LabelStages, Vectors } from "../src/stages.ts";

const vectorsOfTexts: Readonly<Record<string, readonly number[]>> = {
  cat: [0.6, 0.8],
  "a cat": [1, 0],
  "no cat, cat": [0, 1],
  "$& dog": [0, -1],
};

function stagesOf(read: string[]): LabelStages {
  const vectors = (values: readonly number[]): Vectors => ({
    type: "f32",
    shape: [1, values.length],
    bytes: new Uint8Array(Float32Array.from(values).buffer),
  });
  return {
    card: {} as LabelStages["card"],
    toPixels: async () => ({ data: new Float32Array(0), height: 0, width: 0 }),
    encode: async () => ({ kind: "features", type: "f32", shape: [1, 1], bytes: new Uint8Array(4) }),
    tokenize: async (text) => [read.push(text) - 1],
    queryImage: async () => vectors([0.8, -0.6]),
    queryText: async ([at = -1]) => vectors(vectorsOfTexts[read[at] ?? ""] ?? assert.fail(read[at])),
    close: async () => {},
  };
}

const near = (got: Float32Array, wanted: readonly number[]) =>
  assert.ok(
    got.length === wanted.length && wanted.every((value, i) => Math.abs(value - (got[i] ?? Number.NaN)) < 1e-6),
    `${got} for ${wanted}`,
  );

test("a label is read verbatim, or in the place of every {} of each template", async () => {
  const read: string[] = [];
  const stages = stagesOf(read);
  near(await labelVector(stages, "cat", []), [0.6, 0.8]);
  near(await labelVector(stages, "cat", ["a {}"]), [1, 0]);
  near(await labelVector(stages, "cat", ["a {}", "no {}, {}"]), [Math.SQRT1_2, Math.SQRT1_2]);
  near(await labelVector(stages, "$&", ["{} dog"]), [0, -1]);
  assert.deepEqual(read, ["cat", "a cat", "a cat", "no cat, cat", "$& dog"]);
  near(await imageVector(stages, new Uint8Array(0)), [0.8, -0.6]);
});

test("logits are cosines times the scale; probabilities their softmax, however large they are", () => {
  const image = Float32Array.of(0.6, 0.8);
  const labels = [Float32Array.of(1, 0), Float32Array.of(0, 1), Float32Array.of(0, -1)];
  const scores = labelScores(image, labels, 10);
  for (const [i, wanted] of [6, 8, -8].entries()) assert.ok(Math.abs((scores[i]?.logit ?? 0) - wanted) < 1e-5);
  const total = Math.exp(6) + Math.exp(8) + Math.exp(-8);
  for (const [i, logit] of [6, 8, -8].entries()) {
    assert.ok(Math.abs((scores[i]?.probability ?? 0) - Math.exp(logit) / total) < 1e-6);
  }
  const large = labelScores(image, labels, 1e5);
  assert.deepEqual(
    large.map(({ probability }) => probability),
    [0, 1, 0],
  );
  assert.deepEqual(labelScores(image, [], 10), []);
});

test("a label that could not be read keeps its mistake, and has no part in the others' probabilities", () => {
  const image = Float32Array.of(0.6, 0.8);
  const [one, other] = [Float32Array.of(1, 0), Float32Array.of(0, 1)];
  const mistake = new Error("too long");
  const [first, second] = labelScores(image, [one, other], 10);
  assert.deepEqual(scoresOfRead(image, [mistake, one, mistake, other], 10), [mistake, first, mistake, second]);
  assert.deepEqual(scoresOfRead(image, [mistake], 10), [mistake]);
});

test("of several templates that cannot be read the first one is told of, whichever failed first", async () => {
  const stages: LabelStages = {
    ...stagesOf([]),
    tokenize: async (text) => {
      await after(text === "cat" ? 20 : 1);
      throw new RangeError(text);
    },
  };
  await assert.rejects(labelVector(stages, "cat", ["{}", "a {}"]), { message: "cat" });
});
