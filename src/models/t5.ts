// T5, the encoder-decoder language model of BLIP-2. Raffel et al., "Exploring the Limits of Transfer Learning with a Unified
// Text-to-Text Transformer" (2020), with the gated feed-forward of its version 1.1. Upstream: transformers 4.57.6,
// models/t5/modeling_t5.py.
//
// The encoder reads image slots and text; what it makes of them is the memory. The decoder begins with one id. Nothing has
// positions but the scores of self-attention, which get a bias by distance; scores are not scaled.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { elementCount, type Tensor } from "../gpu/tensor.ts";
import { view } from "../gpu/view.ts";
import { appendCache, type LayerCache } from "../kernels/append-cache.ts";
import { attention } from "../kernels/attention.ts";
import { cachedAttention } from "../kernels/cached-attention.ts";
import { embedTokens } from "../kernels/embed-tokens.ts";
import { matmul } from "../kernels/matmul.ts";
import { joinRows } from "../kernels/place-rows.ts";
import { rmsNorm } from "../kernels/rms-norm.ts";
import { selectRows } from "../kernels/select-rows.ts";
import { takeOver } from "../kernels/take-over.ts";
import type { Linear, RmsNorm } from "../kernels/weights.ts";
import { given } from "./given.ts";
import {
  type LanguageModel,
  type MemoryMaking,
  type MemoryRows,
  type ModelPart,
  type PromptRows,
  runParts,
  type SequenceRows,
} from "./language-model.ts";
import { attendMemory, keepMemory } from "./memory.ts";
import type { T5Config } from "./t5-config.ts";

/** width -> heads * headWidth, and out back; no biases. */
export interface T5Attention {
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly out: Linear;
}

/** Pre-norm; gate and up: width -> ffnWidth, down back. No biases; down is f32 always. */
export interface T5FeedForward {
  readonly mlpNorm: RmsNorm;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

/** One pre-norm block of the encoder. */
export interface T5EncoderLayer extends T5FeedForward {
  readonly attentionNorm: RmsNorm;
  readonly attention: T5Attention;
}

/** One pre-norm block of the decoder. */
export interface T5DecoderLayer extends T5EncoderLayer {
  readonly crossNorm: RmsNorm;
  readonly crossAttention: T5Attention;
}

export interface T5Stack<Layer> {
  /** (2 * maxDistance + 1, heads) f32, for all layers: what a score gets by how far the key lies behind its query. */
  readonly positionBias: Tensor;
  readonly layers: readonly Layer[];
  readonly norm: RmsNorm;
}

export interface T5Weights {
  /** Of both stacks: width -> vocabulary, no bias: a table of words as its columns. */
  readonly embeddings: Linear;
  readonly encoder: T5Stack<T5EncoderLayer>;
  readonly decoder: T5Stack<T5DecoderLayer>;
  /** width -> vocabulary, no bias. Left out: the embeddings. */
  readonly head?: Linear;
}

/**
 * Most ids of a text and most of an answer. The model sets no limit; this is more than anyone asks, and keeps buffers in
 * bounds.
 */
export const mostIds = 4096;

/**
 * @param queries image slots in front of the text.
 * @param cacheType f32 under `--dtype f32`, else f16.
 */
export function t5LanguageModel(
  w: T5Weights,
  config: T5Config,
  { queries, cacheType }: { queries: number; cacheType: "f32" | "f16" },
): LanguageModel {
  const { width, ffnWidth, heads, headWidth, startId, stopIds } = config;
  const memoryParts = [...encoding(w, config, queries), ...remembering(w, config)];
  const promptParts = [
    ...memoryParts,
    ...decoding<PromptRows>(w, config),
    head<PromptRows>(w, config, (k, x, { lastRows }) => selectRows(k, x, lastRows)),
  ];
  const tokenParts = [...decoding<SequenceRows>(w, config), head<SequenceRows>(w, config, (_, x) => x)];
  return {
    vocabulary: w.embeddings.columns,
    width,
    widest: Math.max(width, ffnWidth, heads * headWidth),
    maxPositions: mostIds,
    prompt: { kind: "prompt", shape: [queries, width] },
    queries: 0,
    imageId: null,
    memory: {
      rows: (textIds) => queries + textIds,
      parts: memoryParts.length,
      encoder: { start: [startId], maxTextIds: mostIds },
    },
    stopIds,
    cache: { layers: w.decoder.layers.length, width: heads * headWidth, type: cacheType },
    promptParts,
    tokenParts,
    readPrompts: (k, rows) => runParts(k, promptParts, rows),
    readTokens: (k, rows) => runParts(k, tokenParts, rows),
  };
}

/** Image slots and text -> the encoder's states (items * memory rows, width) */
function encoding(w: T5Weights, config: T5Config, queries: number): readonly ModelPart<PromptRows>[] {
  const { width, ffnWidth, heads, headWidth } = config;
  return [
    { cost: () => 0, run: (k, _, rows) => encoderEmbeddings(k, w, memoryOf(rows), rows.prompt, queries) },
    ...w.encoder.layers.map(
      (layer): ModelPart<PromptRows> => ({
        cost: (_rows, _items, memoryRows) => 2 * memoryRows * width * (4 * heads * headWidth + 3 * ffnWidth),
        run: (k, x, rows) => encoderBlock(k, layer, w.encoder.positionBias, config, given(x), memoryOf(rows)),
      }),
    ),
    { cost: () => 0, run: (k, x) => rmsNorm(k, given(x), w.encoder.norm) },
  ];
}

/** The prompt's rows, then embeddings of the text, item by item: (items * memory rows, width) */
function encoderEmbeddings(k: Recorder, w: T5Weights, memory: MemoryMaking, prompt: Tensor, queries: number): Tensor {
  if (memory.text === undefined) throw new ShapeError("t5: expected the ids of a text, got none");
  const [items = 0] = prompt.shape;
  const { inputs: width } = w.embeddings;
  if (elementCount(prompt.shape) !== items * queries * width) {
    throw new ShapeError(
      `t5: expected prompts (${items}, ${queries * width}) without padding, got (${prompt.shape.join(", ")})`,
    );
  }
  const image = takeOver(k, view(prompt, [items * queries, width])); //           (items * queries, width)
  return joinRows(k, image, embeddings(k, w, memory.text), items);
}

/** x + out(attention(norm(x))), then + feed-forward.  x: (items * memory rows, width) -> same */
function encoderBlock(
  k: Recorder,
  w: T5EncoderLayer,
  positionBias: Tensor,
  { heads, headWidth, activation }: T5Config,
  x: Tensor,
  { lengths }: MemoryMaking,
): Tensor {
  const [batch = 1] = lengths.shape;
  const tokens = (x.shape[0] ?? 0) / batch;
  const sizes = { batch, queryTokens: tokens, keyTokens: tokens, heads, headWidth };
  const normed = rmsNorm(k, x, w.attentionNorm);
  const whole = (linear: Linear) => ({ rows: matmul(k, normed, linear), column: 0 });
  const { query, key, value, out } = w.attention;
  const form = { ...sizes, scale: 1, keyLengths: lengths, positionBias };
  const mixed = attention(k, whole(query), whole(key), whole(value), form); //    (items * memory rows, heads * headWidth)
  return feedForward(k, w, activation, matmul(k, mixed, out, { residual: x }));
}

/** The encoder's states become the keys and values of every decoder layer. */
function remembering(w: T5Weights, { width, heads, headWidth }: T5Config): readonly ModelPart<PromptRows>[] {
  return w.decoder.layers.map(({ crossAttention: { key, value } }, i) => ({
    cost: (_rows, _items, memoryRows) => 2 * memoryRows * width * 2 * heads * headWidth,
    run(k, x, rows) {
      const states = given(x);
      keepMemory(k, memoryOf(rows), i, matmul(k, states, key), matmul(k, states, value));
      return states;
    },
  }));
}

/** cursors -> x: (rows, width), before the last norm */
function decoding<Rows extends SequenceRows>(w: T5Weights, config: T5Config): readonly ModelPart<Rows>[] {
  const { width, ffnWidth, heads, headWidth } = config;
  return [
    { cost: () => 0, run: (k, _, rows) => embeddings(k, w, rows.cursors) },
    ...w.decoder.layers.map(
      (layer, i): ModelPart<Rows> => ({
        cost: (rows) => 2 * rows * width * (6 * heads * headWidth + 3 * ffnWidth),
        run: (k, x, rows) => decoderBlock(k, layer, w.decoder.positionBias, config, given(x), rows, i),
      }),
    ),
  ];
}

/** x + self-attention, + attention to the memory, + feed-forward, each of its norm of x.  x: (rows, width) -> same */
function decoderBlock(
  k: Recorder,
  w: T5DecoderLayer,
  positionBias: Tensor,
  { heads, activation }: T5Config,
  x: Tensor,
  rows: SequenceRows,
  layer: number,
): Tensor {
  const { query, key, value, out } = w.attention;
  const normed = rmsNorm(k, x, w.attentionNorm);
  const cache = rows.cache[layer] as LayerCache;
  appendCache(k, matmul(k, normed, key), matmul(k, normed, value), rows.cursors, cache);
  const self = cachedAttention(k, matmul(k, normed, query), cache, rows.table, rows.cursors, heads, 1, {
    positionBias,
  });
  const after = matmul(k, self, out, { residual: x }); //                         (rows, width)
  const asked = matmul(k, rmsNorm(k, after, w.crossNorm), w.crossAttention.query);
  const seen = attendMemory(k, asked, memoryOf<MemoryRows>(rows), layer, { heads, scale: 1 });
  return feedForward(k, w, activation, matmul(k, seen, w.crossAttention.out, { residual: after }));
}

/** x + down(activation(gate(norm(x))) * up(norm(x))).  x: (rows, width) -> same */
function feedForward(k: Recorder, w: T5FeedForward, activation: T5Config["activation"], x: Tensor): Tensor {
  const normed = rmsNorm(k, x, w.mlpNorm);
  const factor = matmul(k, normed, w.up); //                                      (rows, ffnWidth)
  return matmul(k, matmul(k, normed, w.gate, { activation, factor }), w.down, { residual: x });
}

/** x -> logits (rows of interest, vocabulary); with a tied head what it reads is scaled. */
function head<Rows>(
  w: T5Weights,
  { width, tied }: T5Config,
  rowsOf: (k: Recorder, x: Tensor, rows: Rows) => Tensor,
): ModelPart<Rows> {
  const linear = w.head ?? w.embeddings;
  return {
    cost: (rows) => 2 * rows * width * linear.columns,
    run: (k, x, rows) =>
      matmul(k, rmsNorm(k, rowsOf(k, given(x), rows), w.decoder.norm, tied ? width ** -0.5 : 1), linear),
  };
}

/** cursors (rows, 4) -> embeddings (rows, width), zeros for padding; not scaled */
function embeddings(k: Recorder, w: T5Weights, cursors: Tensor): Tensor {
  const x = k.scratch("embeddings", [cursors.shape[0] ?? 0, w.embeddings.inputs]);
  embedTokens(k, x, w.embeddings, null, cursors, 0);
  return x;
}

function memoryOf<Memory>({ memory }: { readonly memory?: Memory }): Memory {
  if (memory === undefined) throw new ShapeError("t5: expected rows with a memory, got none");
  return memory;
}
