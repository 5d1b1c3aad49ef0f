// The Q-Former of BLIP-2: a BERT whose query tokens read an image. Li et al., "BLIP-2: Bootstrapping Language-Image
// Pre-training with Frozen Image Encoders and Large Language Models" (2023). Upstream: transformers 4.57.6,
// models/blip_2/modeling_blip_2.py, Blip2QFormerModel.
//
// A sequence is query tokens, then text; either may be absent. They attend to each other, but only the queries attend
// to the image, and each of the two has its own feed-forward.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { embedTokens } from "../kernels/embed-tokens.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { matmul } from "../kernels/matmul.ts";
import { joinRows, repeatRows } from "../kernels/place-rows.ts";
import type { Linear, Norm } from "../kernels/weights.ts";
import { addAttention, attentionOf, type BertAttention, type BertFeedForward, feedForward } from "./bert.ts";

export interface QFormerLayer {
  readonly selfAttention: BertAttention;
  /** On every `crossAttentionFrequency`-th layer, the first included. */
  readonly crossAttention?: BertAttention;
  readonly queryFeedForward: BertFeedForward;
  /** Only in checkpoints that read text. */
  readonly textFeedForward?: BertFeedForward;
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

/**
 * Where the queries look in a layer that looks at the features; see attentionOf. x as of qFormerBlock.
 * @returns (batch, heads, queries, tokens)
 */
export function qFormerLooks(
  k: Recorder,
  w: QFormerLayer,
  x: QFormerSequence,
  features: Tensor,
  sizes: QFormerSizes,
): Tensor {
  const { queries } = selfAttention(k, w.selfAttention, x, sizes);
  const { crossAttention: cross } = w;
  if (!queries || !cross) throw new ShapeError("q-former: expected queries and a layer that reads features, got none");
  return attentionOf(k, cross, queries, matmul(k, features, cross.key), sizes);
}

/** norm(x + out(attention(x, x))), every row of a sequence seeing all of it */
function selfAttention(k: Recorder, w: BertAttention, x: QFormerSequence, sizes: QFormerSizes): QFormerSequence {
  const keys = joined(k, x, w.key, sizes.batch); //                             (batch * (queries + textTokens), width)
  const values = joined(k, x, w.value, sizes.batch); //                         same
  const { batch, heads, lengths } = sizes;
  const form = { batch, heads, ...(lengths && { keyLengths: lengths }) };
  const attend = (part: Tensor | null) => part && addAttention(k, w, part, keys, values, form);
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

function textFeedForward({ textFeedForward: w }: QFormerLayer): BertFeedForward {
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
