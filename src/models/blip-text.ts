// The text half of BLIP: a BERT whose every layer can attend to something besides the text, as an encoder that sees all of
// it or as a decoder that sees what came before. Li et al., "BLIP: Bootstrapping Language-Image Pre-training for Unified
// Vision-Language Understanding and Generation" (2022). Upstream: transformers 4.57.6, models/blip/modeling_blip_text.py.
//
// Captions: the decoder attends to the features. Questions: the encoder reads the question and the features, and the
// decoder attends to what it made of the question's ids, never to the features.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { view } from "../gpu/view.ts";
import { appendCache, type LayerCache } from "../kernels/append-cache.ts";
import { cachedAttention } from "../kernels/cached-attention.ts";
import { embedTokens } from "../kernels/embed-tokens.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { matmul } from "../kernels/matmul.ts";
import { selectRows } from "../kernels/select-rows.ts";
import { takeOver } from "../kernels/take-over.ts";
import type { Linear, Norm } from "../kernels/weights.ts";
import {
  addAttended,
  addAttention,
  attentionOf,
  type BertAttention,
  type BertFeedForward,
  feedForward,
} from "./bert.ts";
import type { BlipTextConfig } from "./blip-config.ts";
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

export interface BlipTextLayer {
  readonly selfAttention: BertAttention;
  /** Keys and values are made from rows of BlipTextConfig.memoryWidth. */
  readonly crossAttention: BertAttention;
  readonly feedForward: BertFeedForward;
}

interface BlipTextWeights {
  /** (positions, width) */
  readonly positions: Tensor;
  /** Over words and positions. */
  readonly norm: Norm;
  readonly layers: readonly BlipTextLayer[];
}

export interface BlipEncoderWeights extends BlipTextWeights {
  /** width -> vocabulary: a table of words as its columns */
  readonly words: Linear;
}

export interface BlipDecoderWeights extends BlipTextWeights {
  /** As in the encoder; left out where the head's matrix is the table. */
  readonly words?: Linear;
  /** width -> width, before the head */
  readonly transform: Linear;
  readonly transformNorm: Norm;
  /** width -> vocabulary, with a bias */
  readonly head: Linear;
}

/** Words and positions from 0, normed. cursors (rows, 4): see embedTokens -> (rows, width) */
export function blipTextEmbeddings(k: Recorder, words: Linear, w: BlipTextWeights, cursors: Tensor): Tensor {
  const x = k.scratch("text", [cursors.shape[0] ?? 0, words.inputs]);
  embedTokens(k, x, words, w.positions, cursors, 0);
  return layerNorm(k, x, w.norm);
}

export interface BlipEncoderSizes {
  readonly batch: number;
  readonly heads: number;
  /** (batch) u32: how many rows of each text count; those behind are padding. */
  readonly lengths: Tensor;
  /** Rows see those before them only, as in the decoder. */
  readonly causal?: boolean;
}

/**
 * One layer of the encoder: every row attends to its whole text, then to the features where they are given.
 * @param x (batch * text rows, width) -> same
 * @param features (batch * tokens, memoryWidth) f32; null for a text alone
 */
export function blipEncoderBlock(
  k: Recorder,
  w: BlipTextLayer,
  x: Tensor,
  features: Tensor | null,
  sizes: BlipEncoderSizes,
): Tensor {
  const { batch, heads } = sizes;
  const { crossAttention: cross } = w;
  const read = ownAttention(k, w, x, sizes);
  const seen =
    features &&
    addAttention(k, cross, read, matmul(k, features, cross.key), matmul(k, features, cross.value), { batch, heads });
  return feedForward(k, w.feedForward, seen ?? read);
}

/** norm(x + out(attention(x, x))).  x: (batch * text rows, width) -> same */
function ownAttention(
  k: Recorder,
  { selfAttention: own }: BlipTextLayer,
  x: Tensor,
  { batch, heads, lengths, causal = false }: BlipEncoderSizes,
): Tensor {
  const sizes = { batch, heads, keyLengths: lengths, causal };
  return addAttention(k, own, x, matmul(k, x, own.key), matmul(k, x, own.value), sizes);
}

/** Where a layer's rows look; see attentionOf. As blipEncoderBlock -> (batch, heads, text rows, tokens) */
export function blipLooks(k: Recorder, w: BlipTextLayer, x: Tensor, features: Tensor, sizes: BlipEncoderSizes): Tensor {
  const { crossAttention: cross } = w;
  return attentionOf(k, cross, ownAttention(k, w, x, sizes), matmul(k, features, cross.key), sizes);
}

/** Floating-point operations of a layer of the encoder, about, for one text. @param tokens of the image, 0 without one */
export function blipEncoderCost(
  { width, mlpWidth, memoryWidth }: BlipTextConfig,
  textRows: number,
  tokens: number,
): number {
  const image = tokens > 0 ? 4 * width * (textRows * width + tokens * memoryWidth) : 0;
  return 4 * width * textRows * (2 * width + mlpWidth) + image;
}

/**
 * The decoder as a language model.
 * @param encoder of a model that answers questions; null for one that captions
 * @param features (tokens, width) of an image
 * @param cacheType f32 under `--dtype f32`, else f16
 */
export function blipLanguageModel(
  decoder: BlipDecoderWeights,
  encoder: BlipEncoderWeights | null,
  config: BlipTextConfig,
  { features, cacheType }: { readonly features: readonly [number, number]; readonly cacheType: "f32" | "f16" },
): LanguageModel {
  const { width, mlpWidth, maxPositions, startId, stopIds } = config;
  const memoryParts = [
    ...(encoder ? readingQuestions(encoder, config, features) : [imagePart(features)]),
    ...decoder.layers.map((layer, i) => memoryPart(layer, i)),
  ];
  const promptParts = [
    ...memoryParts,
    ...decoding(decoder, config, (k, x, rows: PromptRows) => selectRows(k, x, rows.lastRows)),
  ];
  const tokenParts = decoding(decoder, config, (_, x) => x);
  return {
    vocabulary: decoder.head.columns,
    width,
    widest: Math.max(width, mlpWidth, features[1]),
    maxPositions,
    prompt: { kind: "features", shape: features },
    queries: 0,
    imageId: null,
    stopIds,
    cache: { layers: decoder.layers.length, width, type: cacheType },
    memory: encoder
      ? {
          rows: (textIds) => textIds,
          parts: memoryParts.length,
          encoder: { start: [startId], maxTextIds: maxPositions },
        }
      : { rows: () => features[0], parts: memoryParts.length },
    promptParts,
    tokenParts,
    readPrompts: (k, rows) => runParts(k, promptParts, rows),
    readTokens: (k, rows) => runParts(k, tokenParts, rows),
  };
}

/** The features of all items: (items * tokens, width) f32 */
function featuresOf(k: Recorder, { prompt }: PromptRows, [tokens, width]: readonly [number, number]): Tensor {
  return takeOver(k, view(prompt, [(prompt.shape[0] ?? 0) * tokens, width]));
}

/** The memory of a captioner. */
function imagePart(features: readonly [number, number]): ModelPart<PromptRows> {
  return { cost: () => 0, run: (k, _, rows) => featuresOf(k, rows, features) };
}

/** The memory of a model that answers questions: (items * text rows, width) after the encoder's last layer */
function readingQuestions(
  w: BlipEncoderWeights,
  config: BlipTextConfig,
  features: readonly [number, number],
): readonly ModelPart<PromptRows>[] {
  return [
    {
      cost: () => 0,
      run: (k, _, rows) => blipTextEmbeddings(k, w.words, w, textOf(rows)),
    },
    ...w.layers.map(
      (layer): ModelPart<PromptRows> => ({
        cost: (_, items, memoryRows) => items * blipEncoderCost(config, memoryRows / items, features[0]),
        run(k, x, rows) {
          const { lengths } = making(rows);
          const sizes = { batch: lengths.shape[0] ?? 0, heads: config.heads, lengths };
          return blipEncoderBlock(k, layer, given(x), featuresOf(k, rows, features), sizes);
        },
      }),
    ),
  ];
}

/** Keys and values of one layer's memory. x: (items * memory rows, memoryWidth), handed on as it is */
function memoryPart({ crossAttention: { key, value } }: BlipTextLayer, layer: number): ModelPart<PromptRows> {
  return {
    cost: (_, __, memoryRows) => 4 * memoryRows * key.inputs * key.columns,
    run(k, x, rows) {
      const memory = given(x);
      keepMemory(k, making(rows), layer, matmul(k, memory, key), matmul(k, memory, value));
      return memory;
    },
  };
}

/** cursors -> logits (picked rows, vocabulary). @param pick the rows whose logits are wanted */
function decoding<Rows extends SequenceRows>(
  w: BlipDecoderWeights,
  { heads, width, mlpWidth }: BlipTextConfig,
  pick: (k: Recorder, x: Tensor, rows: Rows) => Tensor,
): readonly ModelPart<Rows>[] {
  return [
    { cost: () => 0, run: (k, _, rows) => blipTextEmbeddings(k, w.words ?? w.head, w, rows.cursors) },
    ...w.layers.map(
      (layer, i): ModelPart<Rows> => ({
        cost: (rows) => 2 * rows * width * (6 * width + 2 * mlpWidth),
        run: (k, x, rows) => decoderBlock(k, layer, i, heads, given(x), rows),
      }),
    ),
    {
      cost: (rows) => 2 * rows * width * (width + w.head.columns),
      run: (k, x, rows) => logits(k, w, pick(k, given(x), rows)),
    },
  ];
}

/** Attention to what came before, to the memory, then the feed-forward; each with a norm after it.  x: (rows, width) -> same */
function decoderBlock(
  k: Recorder,
  w: BlipTextLayer,
  index: number,
  heads: number,
  x: Tensor,
  rows: SequenceRows,
): Tensor {
  const { selfAttention: own, crossAttention: cross } = w;
  const scale = (own.query.columns / heads) ** -0.5;
  const cache = rows.cache[index] as LayerCache;
  appendCache(k, matmul(k, x, own.key), matmul(k, x, own.value), rows.cursors, cache);
  const before = cachedAttention(k, matmul(k, x, own.query), cache, rows.table, rows.cursors, heads, scale);
  const read = addAttended(k, own, x, before);
  const remembered = attendMemory(k, matmul(k, read, cross.query), memoryOf(rows), index, { heads, scale });
  return feedForward(k, w.feedForward, addAttended(k, cross, read, remembered));
}

/** hidden (rows, width) -> (rows, vocabulary) */
function logits(k: Recorder, w: BlipDecoderWeights, hidden: Tensor): Tensor {
  const transformed = layerNorm(k, matmul(k, hidden, w.transform, { activation: "gelu" }), w.transformNorm);
  return matmul(k, transformed, w.head);
}

function memoryOf<M extends MemoryRows>({ memory }: { readonly memory?: M }): M {
  if (memory === undefined) throw new ShapeError("blip: expected rows with a memory, got none");
  return memory;
}

function making(rows: PromptRows): MemoryMaking {
  return memoryOf<MemoryMaking>(rows);
}

function textOf(rows: PromptRows): Tensor {
  const { text } = making(rows);
  if (text === undefined) throw new ShapeError("blip: expected the text of a question, got none");
  return text;
}
