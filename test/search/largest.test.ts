import assert from "node:assert/strict";
import { test } from "node:test";
import { Largest } from "../../src/search/largest.ts";
import { randomValues } from "../kernels/harness.ts";

test("as sorting all of them would give, equal ones by place", () => {
  const scores = [...randomValues(300, 5)].map((value) => Math.round(value * 20));
  const sorted = scores
    .map((score, place) => ({ score, place }))
    .sort((a, b) => b.score - a.score || a.place - b.place);
  for (const most of [1, 2, 7, 299, 300, 400]) {
    const largest = new Largest(most);
    for (const [place, score] of scores.entries()) largest.add(score, place);
    assert.deepEqual(largest.inOrder, sorted.slice(0, most));
    const backwards = new Largest(most);
    for (const [place, score] of [...scores.entries()].reverse()) backwards.add(score, place);
    assert.deepEqual(backwards.inOrder, sorted.slice(0, most), "in whatever order they come");
  }
});
