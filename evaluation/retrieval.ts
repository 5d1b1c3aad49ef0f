// How well captions find their pictures and pictures their captions, given what ITC and ITM say of them.

import type { Share } from "./scores.ts";

/** scores[i][j]: how well candidate j fits query i; candidate i is the one to be found. */
export type Scores = readonly (readonly number[])[];

/** Candidates of each query, the best first; of equals the one that comes first. */
export type Ranking = readonly (readonly number[])[];

/**
 * ITC: the largest dot product over an image's queries.
 * @param images per image (queries, width), rows of length 1; @param texts per text (width), of length 1
 * @returns one row per text, one column per image; transpose() it for the other way
 */
export function itcScores(images: readonly Float32Array[], texts: readonly Float32Array[]): number[][] {
  return texts.map((text) =>
    images.map((image) => {
      let best = Number.NEGATIVE_INFINITY;
      for (let start = 0; start < image.length; start += text.length) {
        let sum = 0;
        for (let i = 0; i < text.length; i += 1) sum += (image[start + i] ?? 0) * (text[i] ?? 0);
        best = Math.max(best, sum);
      }
      return best;
    }),
  );
}

export function transpose(scores: Scores): number[][] {
  return (scores[0] ?? []).map((_, j) => scores.map((row) => row[j] ?? Number.NaN));
}

/** The first `most` candidates of every query. */
export function ranking(scores: Scores, most: number): Ranking {
  return scores.map((row) =>
    row
      .map((score, j) => [score, j] as const)
      .sort(([a, i], [b, j]) => b - a || i - j)
      .slice(0, most)
      .map(([, j]) => j),
  );
}

/**
 * The same candidates by ITM logit + ITC score.
 * @param matchLogit ITM's logit of "they match" for (query, candidate)
 */
export function rerank(
  ranked: Ranking,
  scores: Scores,
  matchLogit: (query: number, candidate: number) => number,
): Ranking {
  return ranked.map((row, i) => {
    const sums = new Map(row.map((j) => [j, matchLogit(i, j) + (scores[i]?.[j] ?? Number.NaN)] as const));
    return [...row].sort((a, b) => (sums.get(b) ?? 0) - (sums.get(a) ?? 0) || row.indexOf(a) - row.indexOf(b));
  });
}

/** R@k: queries whose true partner is among their first k. */
export function recallAt(k: number, ranked: Ranking): Share {
  return { right: ranked.filter((row, i) => row.slice(0, k).includes(i)).length, of: ranked.length };
}
