// The Q-Former of BLIP-2: a BERT whose query tokens read an image. Li et al., "BLIP-2: Bootstrapping Language-Image
// Pre-training with Frozen Image Encoders and Large Language Models" (2023). Upstream: transformers 4.57.6,
// models/blip_2/modeling_blip_2.py, Blip2QFormerModel.
//
// A sequence is query tokens, then text; either may be absent. They attend to each other, but only the queries attend
// to the image, and each of the two has its own feed-forward.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { attention } from "../kernels/attention.ts";
import { embedTokens } from "../kernels/embed-tokens.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { matmul } from "../kernels/matmul.ts";
import { joinRows, repeatRows } from "../kernels/place-rows.ts";
import type { Linear, Norm } from "../kernels/weights.ts";

/** Post-norm attention; keys and values may be made from a wider input. */
export interface QFormerAttention {
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly out: Linear;
  readonly norm: Norm;
}

/** Post-norm feed-forward: width -> mlpWidth -> width. */
export interface QFormerFeedForward {
  readonly fc1: Linear;
  readonly fc2: Linear;
  readonly norm: Norm;
}

export interface QFormerLayer {
  readonly selfAttention: QFormerAttention;
  /** On every `crossAttentionFrequency`-th layer, the first included. */
  readonly crossAttention?: QFormerAttention;
  readonly queryFeedForward: QFormerFeedForward;
  /** Only in checkpoints that read text. */
  readonly textFeedForward?: QFormerFeedForward;
}

export interface QFormerWeights {
  /** (queries, width) */
  readonly queryTokens: Tensor;
  /** Over queries and text, before the first layer. */
  readonly norm: Norm;
  readonly layers: readonly QFormerLayer[];
  readonly text?: QFormerTextEmbeddings;
}

export interface QFormerTextEmbeddings {
  /** width -> vocabulary, no bias: a table of words as its columns */
  readonly words: Linear;
  /** (positions, width) */
  readonly positions: Tensor;
}

export interface QFormerSizes {
  readonly batch: number;
  readonly heads: number;
  /**
   * (batch) u32: how many rows of each sequence count, queries included, where texts of unequal length share a batch. The
   * rows behind them are padding, which nothing attends to. Left out: all of them count.
   */
  readonly lengths?: Tensor;
}

/** The two parts of a sequence, (batch * queries, width) and (batch * textTokens, width); at least one is there. */
export interface QFormerSequence {
  readonly queries: Tensor | null;
  readonly text: Tensor | null;
}

/** The query tokens after the first norm, the same for every image: (batch * queries, width) */
export function queryEmbeddings(k: Recorder, w: QFormerWeights, batch: number): Tensor {
  return repeatRows(k, layerNorm(k, w.queryTokens, w.norm), batch);
}

/** Words and positions after the first norm. cursors (batch * textTokens, 4): see embedTokens -> (batch * textTokens, width) */
export function textEmbeddings(k: Recorder, w: QFormerWeights, cursors: Tensor): Tensor {
  if (w.text === undefined) throw new ShapeError("q-former: expected weights that read text, got none");
  const x = k.scratch("text", [cursors.shape[0] ?? 0, w.norm.gain.shape[0] ?? 0]);
  embedTokens(k, x, w.text.words, w.text.positions, cursors, 0);
  return layerNorm(k, x, w.norm);
}

/** Self-attention over both parts, cross-attention of the queries, then each part's own feed-forward. */
export function qFormerBlock(
  k: Recorder,
  w: QFormerLayer,
  x: QFormerSequence,
  features: Tensor | null,
  sizes: QFormerSizes,
): QFormerSequence {
  const { queries, text } = selfAttention(k, w.selfAttention, x, sizes);
  return {
    queries: queries && feedForward(k, w.queryFeedForward, crossAttention(k, w, queries, features, sizes)),
    text: text && feedForward(k, textFeedForward(w), text),
  };
}

/** norm(x + out(attention(x, x))), every row of a sequence seeing all of it */
function selfAttention(k: Recorder, w: QFormerAttention, x: QFormerSequence, sizes: QFormerSizes): QFormerSequence {
  const keys = joined(k, x, w.key, sizes.batch); //                             (batch * (queries + textTokens), width)
  const values = joined(k, x, w.value, sizes.batch); //                         same
  const attend = (part: Tensor | null) => part && addAttention(k, w, part, keys, values, sizes, sizes.lengths);
  return { queries: attend(x.queries), text: attend(x.text) };
}

/** The queries attend to the features on the layers that have the weights for it. queries: (batch * queries, width) -> same */
function crossAttention(
  k: Recorder,
  { crossAttention: w }: QFormerLayer,
  queries: Tensor,
  features: Tensor | null,
  sizes: QFormerSizes,
): Tensor {
  if (w === undefined) return queries;
  if (features === null) throw new ShapeError("q-former: expected features for its queries, got none");
  return addAttention(k, w, queries, matmul(k, features, w.key), matmul(k, features, w.value), sizes);
}

/** norm(x + out(attention(x, keys, values))).  x: (batch * rows, width) -> same */
function addAttention(
  k: Recorder,
  w: QFormerAttention,
  x: Tensor,
  keys: Tensor,
  values: Tensor,
  { batch, heads }: QFormerSizes,
  keyLengths?: Tensor,
): Tensor {
  const whole = (rows: Tensor) => ({ rows, column: 0 });
  const tokens = (rows: Tensor) => (rows.shape[0] ?? 0) / batch;
  const headWidth = w.query.columns / heads;
  const form = { batch, queryTokens: tokens(x), keyTokens: tokens(keys), heads, headWidth, scale: headWidth ** -0.5 };
  const padding = keyLengths ? { keyLengths } : {};
  const attended = attention(k, whole(matmul(k, x, w.query)), whole(keys), whole(values), { ...form, ...padding });
  return layerNorm(k, matmul(k, attended, w.out, { residual: x }), w.norm);
}

/** norm(x + fc2(gelu(fc1(x)))).  x: (rows, width) -> same */
function feedForward(k: Recorder, w: QFormerFeedForward, x: Tensor): Tensor {
  const hidden = matmul(k, x, w.fc1, { activation: "gelu" }); //                (rows, mlpWidth)
  return layerNorm(k, matmul(k, hidden, w.fc2, { residual: x }), w.norm);
}

function textFeedForward({ textFeedForward: w }: QFormerLayer): QFormerFeedForward {
  if (w === undefined) throw new ShapeError("q-former: expected weights that read text, got none");
  return w;
}

/** Both parts through one linear, item by item in one tensor. */
function joined(k: Recorder, { queries, text }: QFormerSequence, w: Linear, batch: number): Tensor {
  const parts = [queries, text].filter((part) => part !== null).map((part) => matmul(k, part, w));
  const [first, second] = parts;
  if (first === undefined) throw new ShapeError("q-former: expected queries or text, got neither");
  return second === undefined ? first : joinRows(k, first, second, batch);
}
