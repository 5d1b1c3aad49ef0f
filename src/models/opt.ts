// OPT, the language model of BLIP-2. Zhang et al., "OPT: Open Pre-trained Transformer Language Models" (2022).
// Upstream: transformers 4.57.6, models/opt/modeling_opt.py.

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type LayerCache, splitIntoCache } from "../kernels/append-cache.ts";
import { cachedAttention } from "../kernels/cached-attention.ts";
import { embedPrompt } from "../kernels/embed-prompt.ts";
import { embedTokens } from "../kernels/embed-tokens.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { matmul } from "../kernels/matmul.ts";
import type { Linear, Norm } from "../kernels/weights.ts";
import { decoderParts } from "./decoder-parts.ts";
import { given } from "./given.ts";
import type { LanguageModel, ModelPart, SequenceRows } from "./language-model.ts";
import type { OptConfig } from "./opt-config.ts";

/** One pre-norm block. Linears are width -> width, but fc1 width -> ffnWidth and fc2 back; all have biases. */
export interface OptLayer {
  readonly attentionNorm: Norm;
  /** width -> 3 * width: queries, keys, values. */
  readonly qkv: Linear;
  readonly out: Linear;
  readonly mlpNorm: Norm;
  readonly fc1: Linear;
  readonly fc2: Linear;
}

export interface OptWeights {
  /** Token embeddings and head in one: width -> vocabulary, no bias. */
  readonly head: Linear;
  /** (maxPositions + 2, width) f32 or f16 */
  readonly positions: Tensor;
  readonly layers: readonly OptLayer[];
  readonly norm: Norm;
}

/** Position t reads row t + 2 of the position table. */
const positionOffset = 2;

/**
 * @param queries image slots in front of the text.
 * @param imageId what stands for an image slot among ids.
 * @param cacheType f32 under `--dtype f32`, else f16.
 */
export function optLanguageModel(
  weights: OptWeights,
  config: OptConfig,
  { queries, imageId, cacheType }: { queries: number; imageId: number; cacheType: "f32" | "f16" },
): LanguageModel {
  const { width, ffnWidth, maxPositions, stopIds } = config;
  return {
    vocabulary: weights.head.columns,
    width,
    widest: Math.max(3 * width, ffnWidth),
    maxPositions,
    prompt: { kind: "prompt", shape: [queries, width] },
    queries,
    imageId,
    stopIds,
    cache: { layers: weights.layers.length, width, type: cacheType },
    ...decoderParts({
      embeddings: (k, cursors) => embeddings(k, weights, cursors),
      fillPrompt: (k, x, prompt) => embedPrompt(k, x, prompt, weights.positions, queries, positionOffset),
      blocks: blocks(weights, config),
      head: weights.head,
      logits: (k, hidden) => logits(k, weights, hidden),
    }),
  };
}

/** cursors (rows, 4) -> token + position embeddings (rows, width); image slots are left open */
function embeddings(k: Recorder, w: OptWeights, cursors: Tensor): Tensor {
  const x = k.scratch("embeddings", [cursors.shape[0] ?? 0, w.head.inputs]);
  embedTokens(k, x, w.head, w.positions, cursors, positionOffset);
  return x;
}

/** x: (rows, width) -> same, block by block, before the final norm */
function blocks(w: OptWeights, { heads, width, ffnWidth }: OptConfig): readonly ModelPart<SequenceRows>[] {
  return w.layers.map((layer, i) => ({
    cost: (rows) => 2 * rows * width * (4 * width + 2 * ffnWidth),
    run: (k, x, rows) => block(k, layer, heads, given(x), rows, rows.cache[i] as LayerCache),
  }));
}

/** x + out(attention(norm(x))), then + fc2(relu(fc1(norm(x)))).  x: (rows, width) -> same */
function block(k: Recorder, w: OptLayer, heads: number, x: Tensor, rows: SequenceRows, cache: LayerCache): Tensor {
  const attended = matmul(k, selfAttention(k, w, heads, layerNorm(k, x, w.attentionNorm), rows, cache), w.out, {
    residual: x,
  });
  const hidden = matmul(k, layerNorm(k, attended, w.mlpNorm), w.fc1, { activation: "relu" });
  return matmul(k, hidden, w.fc2, { residual: attended });
}

/** Causal over the cached positions; q is scaled by headDim^-0.5 before the product.  x: (rows, width) -> same */
function selfAttention(
  k: Recorder,
  w: OptLayer,
  heads: number,
  x: Tensor,
  rows: SequenceRows,
  cache: LayerCache,
): Tensor {
  const { inputs: width } = w.qkv;
  const fused = matmul(k, x, w.qkv); //                                          (rows, 3 * width)
  const part = (index: number) => ({ rows: fused, column: index * width });
  const parts = { queries: part(0), keys: part(1), values: part(2) };
  const queries = splitIntoCache(k, parts, width, rows.cursors, cache); //       (rows, width)
  return cachedAttention(k, queries, cache, rows.table, rows.cursors, heads, (width / heads) ** -0.5);
}

/** hidden (rows, width) -> (rows, vocabulary) */
function logits(k: Recorder, w: OptWeights, hidden: Tensor): Tensor {
  return matmul(k, layerNorm(k, hidden, w.norm), w.head);
}
