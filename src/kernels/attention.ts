// Attention without a cache, out of attention-weights and attention-mix.

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { attentionMix } from "./attention-mix.ts";
import { type AttentionSizes, attentionWeights, type Columns } from "./attention-weights.ts";

/** Bytes; weights of 15 images of ViT-g at 224 pixels, and under the binding limit of every adapter. */
const mostWeights = 64 * 1024 * 1024;

/**
 * softmax(scale · q·kᵀ)·v within each item and head, every query seeing every key of its item that counts,
 * or with `causal` those up to its own token.
 * q: (batch · queryTokens, any), key, value: (batch · keyTokens, any) f32 -> (batch · queryTokens, heads · headWidth).
 * @throws ShapeError
 */
export function attention(k: Recorder, q: Columns, key: Columns, value: Columns, sizes: AttentionSizes): Tensor {
  const { batch, queryTokens, keyTokens, heads, headWidth } = sizes;
  const y = k.scratch("y", [batch * queryTokens, heads * headWidth]);
  const together = Math.max(1, Math.floor(mostWeights / (heads * queryTokens * keyTokens * 4)));
  for (let firstItem = 0; firstItem < batch; firstItem += together) {
    const items = Math.min(together, batch - firstItem);
    attentionMix(k, attentionWeights(k, q, key, sizes, { firstItem, items }), value, sizes, y);
  }
  return y;
}
