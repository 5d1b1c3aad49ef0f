// How images and texts are compared: the whole flow of `match`, and the parts of it that index and search share.
//
//     image bytes -> pixels -> features -> vectors ─┐ cosine (itc)
//                    toPixels  ENCODE      QUERY    │
//     text -> ids ──────────── vector ──────────────┘
//     features and ids ─────── logits ────────────── probability (itm)

import { cosines, vectorValues } from "./search/similarity.ts";
import type {
  Activation,
  ContrastStages,
  ImageStages,
  MatchLogits,
  RetrievalStages,
  RowOptions,
  Vectors,
} from "./stages.ts";
import { together } from "./together.ts";

/** What depends on the image alone, and serves every text. */
export interface EncodedImage {
  readonly features: Activation;
  /** (queries, width) */
  readonly vectors: Vectors;
}

export interface Match {
  /** Probability that the text belongs to the image, by the matching head. */
  readonly itm: number;
  /** Cosine of image and text: the largest over the image's vectors. */
  readonly itc: number;
}

/** An image file -> what is compared with texts. @throws ImageError */
export async function encodeImage(
  stages: ContrastStages,
  image: Uint8Array,
  options: RowOptions = {},
): Promise<EncodedImage> {
  return encodedFrom(stages, await featuresOf(stages, image, options), options);
}

/** The second half of encodeImage. @param features as featuresOf gives them */
export async function encodedFrom(
  stages: ContrastStages,
  features: Activation,
  options: RowOptions = {},
): Promise<EncodedImage> {
  return { features, vectors: await stages.queryImage(features, options) };
}

/** An image file -> features (tokens, width). @throws ImageError */
export async function featuresOf(
  stages: ImageStages,
  image: Uint8Array,
  options: RowOptions = {},
): Promise<Activation> {
  return stages.encode(await stages.toPixels(image), options);
}

/** An encoded image and a text. @throws TokenizerError, TextError */
export async function matchWith(
  stages: RetrievalStages,
  image: EncodedImage,
  text: string,
  options: RowOptions = {},
): Promise<Match> {
  const ids = await stages.tokenize(text);
  const [vector, logits] = await Promise.all([
    stages.queryText(ids, options),
    stages.queryBoth(image.features, ids, options),
  ]);
  return { itm: matchProbability(logits), itc: cosineOf(image.vectors, vector) };
}

/** softmax([no match, match])[1], once: the published example takes it twice, and calls a certain match 0.73. */
export function matchProbability([no, yes]: MatchLogits): number {
  return 1 / (1 + Math.exp(no - yes));
}

/** The largest dot product of an image's vectors (queries, width) with a text's (1, width). */
export function cosineOf(image: Vectors, text: Vectors): number {
  const [queries, width] = image.shape;
  const [cosine = Number.NaN] = cosines(vectorValues(image), { images: 1, queries, width }, [vectorValues(text)]);
  return cosine;
}

/** A score with the digits that f32 has, so that a line does not pretend to more. */
export function score(value: number): number {
  return Number(value.toPrecision(7));
}

/** What images that were found by their cosines are ordered by once they are matched, as BLIP-2's retrieval does it. */
export function rankingScore([, yes]: MatchLogits, itc: number): number {
  return yes + itc;
}

/** An image that was found by its cosine with a text. */
export interface Candidate {
  readonly itc: number;
  /** (tokens, width) of the image; asked for once. */
  features(): Promise<Activation>;
}

/** A candidate that was matched, or why it could not be. */
export type Reranked<C extends Candidate> = { readonly candidate: C } & (
  | { readonly itm: number; readonly score: number }
  | { readonly error: unknown }
);

/**
 * Match candidates with a text, and order them by logit plus cosine, the largest first; equal ones stay in order, and
 * those whose features cannot be had come last.
 * @throws TextError; the signal's reason once it is aborted
 */
export async function rerank<C extends Candidate>(
  stages: RetrievalStages,
  candidates: readonly C[],
  textIds: readonly number[],
  options: RowOptions = {},
): Promise<Reranked<C>[]> {
  const matched = await together(
    candidates.map(async (candidate): Promise<Reranked<C>> => {
      let features: Activation;
      try {
        features = await candidate.features();
      } catch (error) {
        options.signal?.throwIfAborted();
        return { candidate, error };
      }
      const logits = await stages.queryBoth(features, textIds, options);
      return { candidate, itm: matchProbability(logits), score: rankingScore(logits, candidate.itc) };
    }),
  );
  const scoreOf = (each: Reranked<C>) => ("score" in each ? each.score : Number.NEGATIVE_INFINITY);
  return matched.sort((a, b) => (scoreOf(a) === scoreOf(b) ? 0 : scoreOf(b) - scoreOf(a)));
}
