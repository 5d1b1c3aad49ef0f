// How an image is classified by labels: the whole flow of `classify`.
//
//     image bytes -> pixels -> features -> vector ─┐ cosine · scale (logit) -> softmax over the labels (probability)
//     label -> text of each template -> ids -> vector ┘

import { encodeImage } from "./matching.ts";
import { vectorValues } from "./search/similarity.ts";
import type { LabelStages, RowOptions } from "./stages.ts";
import { together } from "./together.ts";

/** What stands in a template for the label. */
export const labelSlot = "{}";

/** A label's share of an image. */
export interface LabelScore {
  /** Cosine times the model's scale: CLIP's logits_per_image. */
  readonly logit: number;
  /** Softmax of the logits over all labels that were compared. */
  readonly probability: number;
}

/** An image file -> its unit vector (width). @throws ImageError */
export async function imageVector(
  stages: LabelStages,
  image: Uint8Array,
  options: RowOptions = {},
): Promise<Float32Array> {
  const { vectors } = await encodeImage(stages, image, options);
  return vectorValues(vectors);
}

/**
 * A label -> its unit vector (width): that of the label verbatim, or of the template around it; of several templates the
 * mean of their unit vectors, at length 1 again, as CLIP was evaluated.
 * @param templates texts with {} for the label; none: the label as it is
 * @throws TokenizerError, TextError
 */
export async function labelVector(
  stages: LabelStages,
  label: string,
  templates: readonly string[],
  options: RowOptions = {},
): Promise<Float32Array> {
  const texts = templates.length === 0 ? [label] : templates.map((template) => template.split(labelSlot).join(label));
  const vectors = await together(
    texts.map(async (text) => vectorValues(await stages.queryText(await stages.tokenize(text), options))),
  );
  const [first = new Float32Array(0)] = vectors;
  if (vectors.length === 1) return first;
  const sums = Float64Array.from(first, (_, i) => vectors.reduce((sum, vector) => sum + (vector[i] ?? 0), 0));
  const length = Math.sqrt(sums.reduce((sum, value) => sum + value * value, 0));
  return Float32Array.from(sums, (value) => value / Math.max(length, Number.MIN_VALUE));
}

/** The scores of labels by their vectors, in order. @param scale of the model's card */
export function labelScores(
  image: Float32Array,
  labels: readonly Float32Array[],
  scale: number,
): readonly LabelScore[] {
  const logits = labels.map((label) => scale * label.reduce((sum, value, i) => sum + value * (image[i] ?? 0), 0));
  const largest = Math.max(...logits);
  const shares = logits.map((logit) => Math.exp(logit - largest));
  const total = shares.reduce((sum, share) => sum + share, 0);
  return logits.map((logit, i) => ({ logit, probability: (shares[i] ?? 0) / total }));
}

/** The same where labels could not be read: each keeps its mistake, and has no part in the others' probabilities. */
export function scoresOfRead<Mistake extends object>(
  image: Float32Array,
  labels: readonly (Float32Array | Mistake)[],
  scale: number,
): readonly (LabelScore | Mistake)[] {
  const read = labels.filter((vector) => vector instanceof Float32Array);
  const scores = labelScores(image, read, scale)[Symbol.iterator]();
  return labels.map((vector) => (vector instanceof Float32Array ? (scores.next().value as LabelScore) : vector));
}
