// The flow of matching on stages that only say what they were asked: one encode for all texts, and the order of candidates.

import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeImage, matchProbability, matchWith, rankingScore, rerank } from "../src/matching.ts";
import type { Activation, MatchLogits, RetrievalStages, Vectors } from "../src/stages.ts";

function vectors(rows: number, values: readonly number[]): Vectors {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  return { type: "f32", shape: [rows, values.length / rows], bytes };
}

function featuresNamed(value: number): Activation {
  return { kind: "features", type: "f32", shape: [1, 1], bytes: Uint8Array.of(value) };
}

/** Logits by the first byte of the features. */
function stagesOf(logits: readonly MatchLogits[], asked: string[] = []): RetrievalStages {
  const say = <T>(what: string, value: T): Promise<T> => {
    asked.push(what);
    return Promise.resolve(value);
  };
  return {
    card: {} as RetrievalStages["card"],
    toPixels: (image) => say("toPixels", { data: Float32Array.from(image), height: 1, width: 1 }),
    encode: (pixels) => say("encode", featuresNamed(pixels.data[0] ?? 0)),
    tokenize: (text) => say("tokenize", [...Buffer.from(text)]),
    queryImage: () => say("queryImage", vectors(3, [1, 0, 0.6, 0.8, 0, -1])),
    queryText: () => say("queryText", vectors(1, [0, 1])),
    queryBoth: ({ bytes }, ids) => say(`queryBoth ${ids.length}`, logits[bytes[0] ?? 0] ?? [0, 0]),
    close: async () => {},
  };
}

test("one encode serves all texts; the largest cosine counts, and the softmax of the logits, once", async () => {
  const asked: string[] = [];
  const stages = stagesOf([[0, Math.log(3)]], asked);
  const image = await encodeImage(stages, Uint8Array.of(0));
  const matches = [await matchWith(stages, image, "ab"), await matchWith(stages, image, "abc")];
  for (const { itm, itc } of matches) {
    assert.ok(Math.abs(itm - 0.75) < 1e-12);
    assert.ok(Math.abs(itc - 0.8) < 1e-6);
  }
  const count = (what: string) => asked.filter((each) => each === what).length;
  assert.deepEqual(["encode", "queryImage", "queryText", "queryBoth 2", "queryBoth 3"].map(count), [1, 1, 2, 1, 1]);
});

test("probabilities at the ends", () => {
  assert.equal(matchProbability([2, 2]), 0.5);
  assert.equal(matchProbability([-1000, 1000]), 1);
  assert.equal(matchProbability([1000, -1000]), 0);
});

test("candidates are ordered by the second logit plus the cosine, not by the probability", async () => {
  const logits: MatchLogits[] = [
    [-9, 1],
    [5, 1.2],
    [0, 1.1],
  ];
  assert.equal(rankingScore([7, 1.5], 0.25), 1.75);
  const candidate = (place: number, itc: number) => ({ place, itc, features: async () => featuresNamed(place) });
  const found = await rerank(stagesOf(logits), [candidate(0, 0.35), candidate(1, 0.1), candidate(2, 0.1)], [7]);
  assert.deepEqual(
    found.map((each) => each.candidate.place),
    [0, 1, 2],
  );
  const other = await rerank(stagesOf(logits), [candidate(0, 0.15), candidate(2, 0.1), candidate(1, 0.1)], [7]);
  assert.deepEqual(
    other.map((each) => each.candidate.place),
    [1, 2, 0],
  );
});

test("a candidate whose image is gone comes last with its error; a text that cannot be read fails the call", async () => {
  const gone = { itc: 0.9, features: () => Promise.reject(new Error("gone")) };
  const there = { itc: 0.1, features: async () => featuresNamed(0) };
  const found = await rerank(stagesOf([[0, -50]]), [gone, there], [7]);
  assert.deepEqual(
    found.map((each) => ("error" in each ? String(each.error) : each.score)),
    [-49.9, "Error: gone"],
  );
  const stages = { ...stagesOf([]), queryBoth: () => Promise.reject(new Error("too long")) };
  await assert.rejects(rerank(stages, [there], [7]), /too long/);
});
