import assert from "node:assert/strict";
import { test } from "node:test";
import { NearScores } from "../../src/search/near-scores.ts";
import { imageScores, type SearchQuery } from "../../src/search/similarity.ts";
import { unevenVectors, unitVector } from "./some-vectors.ts";

test("near scores are as near as is said, for texts and images, for fewer images than there is room for", () => {
  for (const [queries, width] of [
    [3, 11],
    [32, 64],
  ] as const) {
    const sizes = { images: 9, queries, width };
    const values = unevenVectors(9, queries, width, 4);
    const texts: SearchQuery[] = [1, 2, 3, 4, 5].map((seed) => [unitVector(width, seed)]);
    const like = Array.from({ length: queries }, (_, q) => values.subarray(q * width, (q + 1) * width));
    const searched = [...texts, like, texts[0] ?? []];
    const near = new NearScores(sizes, searched);
    assert.ok(near.error < 0.01, `${near.error}`);
    for (const images of [9, 2]) {
      const got = near.of(values, images);
      const wanted = imageScores(values.subarray(0, images * queries * width), { ...sizes, images }, searched);
      assert.equal(got.length, wanted.length);
      let off = 0;
      for (const [i, score] of wanted.entries()) off = Math.max(off, Math.abs(score - (got[i] ?? 9)));
      assert.ok(off <= near.error, `${off}, said to be at most ${near.error}`);
      assert.ok(off > 0, "whole numbers round");
    }
  }
});
