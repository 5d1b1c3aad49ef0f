import assert from "node:assert/strict";
import { test } from "node:test";
import { itcScores, ranking, recallAt, rerank, transpose } from "../../evaluation/retrieval.ts";

const vector = (...values: number[]) => Float32Array.from(values);

test("ITC is the largest dot product over an image's queries", () => {
  const images = [vector(1, 0, 0, 1), vector(-1, 0, 0.6, 0.8)];
  const texts = [vector(0, 1), vector(1, 0)];
  const scores = itcScores(images, texts);
  assert.deepEqual(
    scores.map((row) => row.map((score) => Number(score.toFixed(6)))),
    [
      [1, 0.8],
      [1, 0.6],
    ],
  );
  assert.deepEqual(transpose(scores), [
    [scores[0]?.[0], scores[1]?.[0]],
    [scores[0]?.[1], scores[1]?.[1]],
  ]);
});

const scores = [
  [0.5, 0.9, 0.1],
  [0.2, 0.7, 0.3],
  [0.4, 0.4, 0.3],
];

test("rankings hold the best first, and of equals the first", () => {
  assert.deepEqual(ranking(scores, 3), [
    [1, 0, 2],
    [1, 2, 0],
    [0, 1, 2],
  ]);
  assert.deepEqual(ranking(scores, 1), [[1], [1], [0]]);
});

test("R@k counts queries whose partner is among the first k", () => {
  const ranked = ranking(scores, 3);
  assert.deepEqual(
    [1, 2, 3].map((k) => recallAt(k, ranked)),
    [
      { right: 1, of: 3 },
      { right: 2, of: 3 },
      { right: 3, of: 3 },
    ],
  );
  assert.deepEqual(recallAt(3, ranking(scores, 1)), { right: 1, of: 3 }, "what is not ranked is not found");
});

test("ranking anew adds ITM to ITC, among the candidates that there are", () => {
  const ranked = ranking(scores, 2);
  const logits: Record<string, number> = { "0 1": 0, "0 0": 0.5, "1 1": 0, "1 2": 0.3, "2 0": -1, "2 1": -1 };
  // query 0: 0.9 against 1.0; query 1: 0.7 against 0.6; query 2: equal, the order stays
  const again = rerank(ranked, scores, (query, candidate) => logits[`${query} ${candidate}`] ?? Number.NaN);
  assert.deepEqual(again, [
    [0, 1],
    [1, 2],
    [0, 1],
  ]);
});
