// Llama, the language model of InstructBLIP with Vicuna. Touvron et al., "LLaMA: Open and Efficient Foundation Language Models"
// (2023). Upstream: transformers 4.57.6, models/llama/modeling_llama.py.

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type LayerCache, splitIntoCache } from "../kernels/append-cache.ts";
import { cachedAttention } from "../kernels/cached-attention.ts";
import { embedPrompt } from "../kernels/embed-prompt.ts";
import { embedTokens } from "../kernels/embed-tokens.ts";
import { matmul } from "../kernels/matmul.ts";
import { rmsNorm } from "../kernels/rms-norm.ts";
import { rotary } from "../kernels/rotary.ts";
import type { Linear, RmsNorm } from "../kernels/weights.ts";
import { decoderParts } from "./decoder-parts.ts";
import { given } from "./given.ts";
import type { LanguageModel, ModelPart, SequenceRows } from "./language-model.ts";
import type { LlamaConfig } from "./llama-config.ts";

/** One pre-norm block. Linears are width -> width, but gate and up width -> ffnWidth and down back; no biases. */
export interface LlamaLayer {
  readonly attentionNorm: RmsNorm;
  /** width -> 3 * width: queries, keys, values. */
  readonly qkv: Linear;
  readonly out: Linear;
  readonly mlpNorm: RmsNorm;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

export interface LlamaWeights {
  /** width -> vocabulary, no bias: a table of words as its columns. */
  readonly embeddings: Linear;
  /** (maxPositions, headWidth) f32: cosines and sines; see rotary-turns.ts */
  readonly turns: Tensor;
  readonly layers: readonly LlamaLayer[];
  readonly norm: RmsNorm;
  /** width -> vocabulary, no bias. Left out: the embeddings. */
  readonly head?: Linear;
}

/** Of a cursor: (token, position, cache slot, sequence). */
const positionColumn = 1;

/**
 * @param queries image slots in front of the text.
 * @param imageId what stands for an image slot among ids.
 * @param cacheType f32 under `--dtype f32`, else f16.
 */
export function llamaLanguageModel(
  w: LlamaWeights,
  config: LlamaConfig,
  { queries, imageId, cacheType }: { queries: number; imageId: number; cacheType: "f32" | "f16" },
): LanguageModel {
  const { width, ffnWidth, maxPositions, stopIds } = config;
  const head = w.head ?? w.embeddings;
  return {
    vocabulary: w.embeddings.columns,
    width,
    widest: Math.max(3 * width, ffnWidth),
    maxPositions,
    prompt: { kind: "prompt", shape: [queries, width] },
    queries,
    imageId,
    stopIds,
    cache: { layers: w.layers.length, width, type: cacheType },
    ...decoderParts({
      embeddings: (k, cursors) => embeddings(k, w, cursors),
      fillPrompt: (k, x, prompt) => embedPrompt(k, x, prompt, null, queries, 0),
      blocks: blocks(w, config),
      head,
      logits: (k, hidden) => matmul(k, rmsNorm(k, hidden, w.norm), head),
    }),
  };
}

/** cursors (rows, 4) -> token embeddings (rows, width), zeros for padding; image slots are left open */
function embeddings(k: Recorder, w: LlamaWeights, cursors: Tensor): Tensor {
  const x = k.scratch("embeddings", [cursors.shape[0] ?? 0, w.embeddings.inputs]);
  embedTokens(k, x, w.embeddings, null, cursors, 0);
  return x;
}

/** x: (rows, width) -> same, block by block, before the final norm */
function blocks(w: LlamaWeights, { heads, width, ffnWidth }: LlamaConfig): readonly ModelPart<SequenceRows>[] {
  return w.layers.map((layer, i) => ({
    cost: (rows) => 2 * rows * width * (4 * width + 3 * ffnWidth),
    run: (k, x, rows) => block(k, layer, w.turns, heads, given(x), rows, rows.cache[i] as LayerCache),
  }));
}

/** x + out(attention(norm(x))), then + down(silu(gate(norm(x))) * up(norm(x))).  x: (rows, width) -> same */
function block(
  k: Recorder,
  w: LlamaLayer,
  turns: Tensor,
  heads: number,
  x: Tensor,
  rows: SequenceRows,
  cache: LayerCache,
): Tensor {
  const mixed = selfAttention(k, w, turns, heads, rmsNorm(k, x, w.attentionNorm), rows, cache);
  const attended = matmul(k, mixed, w.out, { residual: x });
  const normed = rmsNorm(k, attended, w.mlpNorm);
  const factor = matmul(k, normed, w.up); //                                        (rows, ffnWidth)
  return matmul(k, matmul(k, normed, w.gate, { activation: "silu", factor }), w.down, { residual: attended });
}

/** Causal over the cached positions; queries and keys are turned by their positions.  x: (rows, width) -> same */
function selfAttention(
  k: Recorder,
  w: LlamaLayer,
  turns: Tensor,
  heads: number,
  x: Tensor,
  rows: SequenceRows,
  cache: LayerCache,
): Tensor {
  const { inputs: width } = w.qkv;
  const headWidth = width / heads;
  const fused = matmul(k, x, w.qkv); //                                              (rows, 3 * width)
  const positions = { rows: rows.cursors, column: positionColumn };
  const turned = rotary(k, fused, turns, positions, { heads: 2 * heads, headWidth }); // (rows, 2 * width)
  const parts = {
    queries: { rows: turned, column: 0 },
    keys: { rows: turned, column: width },
    values: { rows: fused, column: 2 * width },
  };
  const queries = splitIntoCache(k, parts, width, rows.cursors, cache); //           (rows, width)
  return cachedAttention(k, queries, cache, rows.table, rows.cursors, heads, headWidth ** -0.5);
}
