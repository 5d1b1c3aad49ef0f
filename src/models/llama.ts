// Llama, the language model of InstructBLIP with Vicuna. Touvron et al., "LLaMA: Open and Efficient Foundation Language Models"
// (2023). Upstream: transformers 4.57.6, models/llama/modeling_llama.py.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { appendCache, type LayerCache } from "../kernels/append-cache.ts";
import { cachedAttention } from "../kernels/cached-attention.ts";
import { embedPrompt } from "../kernels/embed-prompt.ts";
import { embedTokens } from "../kernels/embed-tokens.ts";
import { matmul } from "../kernels/matmul.ts";
import { rmsNorm } from "../kernels/rms-norm.ts";
import { rotary } from "../kernels/rotary.ts";
import { selectRows } from "../kernels/select-rows.ts";
import type { Linear, RmsNorm } from "../kernels/weights.ts";
import { type LanguageModel, type ModelPart, type PromptRows, runParts, type SequenceRows } from "./language-model.ts";
import type { LlamaConfig } from "./llama-config.ts";

/** One pre-norm block. Linears are width -> width, but gate and up width -> ffnWidth and down back; no biases. */
export interface LlamaLayer {
  readonly attentionNorm: RmsNorm;
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
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
  const promptParts: readonly ModelPart<PromptRows>[] = [
    {
      cost: () => 0,
      run(k, _, rows) {
        const x = embeddings(k, w, rows.cursors); //                                (items * tokens, width)
        embedPrompt(k, x, rows.prompt, null, queries, 0); //                        same, image slots filled
        return x;
      },
    },
    ...blocks(w, config),
    head<PromptRows>(
      w,
      (_, items) => items,
      (k, x, { lastRows }) => selectRows(k, x, lastRows),
    ),
  ];
  const tokenParts: readonly ModelPart<SequenceRows>[] = [
    { cost: () => 0, run: (k, _, rows) => embeddings(k, w, rows.cursors) },
    ...blocks(w, config),
    head<SequenceRows>(
      w,
      (rows) => rows,
      (_, x) => x,
    ),
  ];
  return {
    vocabulary: w.embeddings.columns,
    width,
    widest: Math.max(width, ffnWidth),
    maxPositions,
    prompt: { kind: "prompt", shape: [queries, width] },
    queries,
    imageId,
    stopIds,
    cache: { layers: w.layers.length, width, type: cacheType },
    promptParts,
    tokenParts,
    readPrompts: (k, rows) => runParts(k, promptParts, rows),
    readTokens: (k, rows) => runParts(k, tokenParts, rows),
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
  const turned = (linear: Linear) =>
    rotary(k, matmul(k, x, linear), turns, { rows: rows.cursors, column: positionColumn }, heads);
  const query = turned(w.query);
  appendCache(k, turned(w.key), matmul(k, x, w.value), rows.cursors, cache);
  return cachedAttention(k, query, cache, rows.table, rows.cursors, heads, (w.query.columns / heads) ** -0.5);
}

/** x -> logits (rows of interest, vocabulary). @param count how many rows those are, of so many rows of so many items */
function head<Rows>(
  w: LlamaWeights,
  count: (rows: number, items: number) => number,
  rowsOf: (k: Recorder, x: Tensor, rows: Rows) => Tensor,
): ModelPart<Rows> {
  const linear = w.head ?? w.embeddings;
  return {
    cost: (rows, items) => 2 * count(rows, items) * linear.inputs * linear.columns,
    run: (k, x, rows) => matmul(k, rmsNorm(k, rowsOf(k, given(x), rows), w.norm), linear),
  };
}

function given(x: Tensor | null): Tensor {
  if (x === null) throw new ShapeError("llama: expected a tensor from the part before, got none");
  return x;
}
