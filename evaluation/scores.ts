// How much of what is true was said: shares of captions and of answers.

import type { CaptionFacts } from "./caption-facts.ts";

/** `right` of `of`. */
export interface Share {
  readonly right: number;
  readonly of: number;
}

/** What is true of a scene. */
export interface SceneFacts {
  /** kind -> how many */
  readonly kinds: Readonly<Record<string, number>>;
  readonly colour: string;
}

export interface CaptionScores {
  /** Captions that name exactly the kinds that are there, each with its count, and the colour. */
  readonly allRight: Share;
  /** Of the (scene, kind) pairs that are true, those whose kind is named. */
  readonly kindRecall: Share;
  /** Of the named true kinds, those with the right count. */
  readonly countGivenKind: Share;
  readonly colour: Share;
}

/** @param said in the order of `truths` */
export function captionScores(truths: readonly SceneFacts[], said: readonly CaptionFacts[]): CaptionScores {
  let [pairs, named, counted, colours, all] = [0, 0, 0, 0, 0];
  for (const [i, truth] of truths.entries()) {
    const caption = said[i];
    if (caption === undefined) throw new RangeError(`scores: expected ${truths.length} captions, got ${said.length}`);
    const kinds = Object.entries(truth.kinds);
    const found = kinds.filter(([kind]) => caption.kinds.has(kind));
    const right = found.filter(([kind, count]) => caption.kinds.get(kind) === count);
    const colour = caption.colour === truth.colour;
    pairs += kinds.length;
    named += found.length;
    counted += right.length;
    colours += colour ? 1 : 0;
    all += colour && right.length === kinds.length && caption.kinds.size === kinds.length ? 1 : 0;
  }
  return {
    allRight: { right: all, of: truths.length },
    kindRecall: { right: named, of: pairs },
    countGivenKind: { right: counted, of: named },
    colour: { right: colours, of: truths.length },
  };
}

/** A question whose answer is known. */
export interface KnownAnswer {
  /** of question */
  readonly kind: string;
  readonly answer: string;
}

/**
 * Per kind of question, in the order of their first, how many answers are the known one, word by word.
 * @param said in the order of `asked`
 */
export function answerScores(asked: readonly KnownAnswer[], said: readonly string[]): Map<string, Share> {
  if (asked.length !== said.length)
    throw new RangeError(`scores: expected ${asked.length} answers, got ${said.length}`);
  const scores = new Map<string, Share>();
  for (const [i, { kind, answer }] of asked.entries()) {
    const { right, of } = scores.get(kind) ?? { right: 0, of: 0 };
    scores.set(kind, { right: right + (said[i] === answer ? 1 : 0), of: of + 1 });
  }
  return scores;
}
