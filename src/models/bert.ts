// The two halves of a BERT layer, both post-norm: attention, and the feed-forward. Devlin et al., "BERT: Pre-training of
// Deep Bidirectional Transformers for Language Understanding" (2018).

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { attention } from "../kernels/attention.ts";
import { attentionWeights } from "../kernels/attention-weights.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { matmul } from "../kernels/matmul.ts";
import type { Linear, Norm } from "../kernels/weights.ts";

/** Keys and values may be made from a wider input. */
export interface BertAttention {
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly out: Linear;
  readonly norm: Norm;
}

/** width -> mlpWidth -> width. */
export interface BertFeedForward {
  readonly fc1: Linear;
  readonly fc2: Linear;
  readonly norm: Norm;
}

export interface BertAttentionSizes {
  readonly batch: number;
  readonly heads: number;
  /** See AttentionSizes. */
  readonly keyLengths?: Tensor;
  /** See AttentionSizes. */
  readonly causal?: boolean;
}

/** norm(x + out(attention(x, keys, values))).  x: (batch * rows, width) -> same */
export function addAttention(
  k: Recorder,
  w: BertAttention,
  x: Tensor,
  keys: Tensor,
  values: Tensor,
  { batch, heads, ...seen }: BertAttentionSizes,
): Tensor {
  const form = { ...formOf(w, x, keys, batch, heads), ...seen };
  const attended = attention(k, whole(matmul(k, x, w.query)), whole(keys), whole(values), form);
  return addAttended(k, w, x, attended);
}

/**
 * The weights that addAttention mixes values with, not divided by their sums: (batch, heads, rows, key rows).
 * @param x (batch * rows, width) @param keys (batch * key rows, width)
 */
export function attentionOf(
  k: Recorder,
  w: BertAttention,
  x: Tensor,
  keys: Tensor,
  { batch, heads }: BertAttentionSizes,
): Tensor {
  const form = formOf(w, x, keys, batch, heads);
  return attentionWeights(k, whole(matmul(k, x, w.query)), whole(keys), form);
}

function whole(rows: Tensor) {
  return { rows, column: 0 };
}

function formOf(w: BertAttention, x: Tensor, keys: Tensor, batch: number, heads: number) {
  const tokens = (rows: Tensor) => (rows.shape[0] ?? 0) / batch;
  const headWidth = w.query.columns / heads;
  return { batch, queryTokens: tokens(x), keyTokens: tokens(keys), heads, headWidth, scale: headWidth ** -0.5 };
}

/** norm(x + out(attended)).  x, attended: (rows, width) -> same */
export function addAttended(k: Recorder, w: BertAttention, x: Tensor, attended: Tensor): Tensor {
  return layerNorm(k, matmul(k, attended, w.out, { residual: x }), w.norm);
}

/** norm(x + fc2(gelu(fc1(x)))).  x: (rows, width) -> same */
export function feedForward(k: Recorder, w: BertFeedForward, x: Tensor): Tensor {
  const hidden = matmul(k, x, w.fc1, { activation: "gelu" }); //                (rows, mlpWidth)
  return layerNorm(k, matmul(k, hidden, w.fc2, { residual: x }), w.norm);
}
