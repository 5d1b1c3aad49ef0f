// ChatGLM-6B, the language model of VisualGLM. Du et al., "GLM: General Language Model Pretraining with Autoregressive Blank
// Infilling" (2022). Upstream: THUDM/VisualGLM-6B and the modeling_chatglm.py of its Hugging Face repository.
//
// A sequence is text with the image's slots inside, [gMASK], <sop>, and what is generated. All before <sop> is the context,
// whose rows see each other whatever their order. A position is a pair: in the context the row's number and 0, from <sop>
// on the number of [gMASK] and 1, 2, 3, …; half of every head is turned by each of the two.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type LayerCache, splitIntoCache } from "../kernels/append-cache.ts";
import { blockPositions } from "../kernels/block-positions.ts";
import { cachedAttention } from "../kernels/cached-attention.ts";
import { embedPrompt } from "../kernels/embed-prompt.ts";
import { embedTokens } from "../kernels/embed-tokens.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { matmul } from "../kernels/matmul.ts";
import { rotary } from "../kernels/rotary.ts";
import type { Linear, Norm } from "../kernels/weights.ts";
import { decoderParts } from "./decoder-parts.ts";
import { given } from "./given.ts";
import type { GlmConfig } from "./glm-config.ts";
import type { LanguageModel, ModelPart, SequenceRows } from "./language-model.ts";

/** One block. Linears are width -> width, but fc1 width -> mlpWidth and fc2 back; all have biases. */
export interface GlmLayer {
  readonly attentionNorm: Norm;
  /** width -> 3 * width: queries, keys, values. */
  readonly qkv: Linear;
  readonly out: Linear;
  readonly mlpNorm: Norm;
  readonly fc1: Linear;
  readonly fc2: Linear;
}

export interface GlmWeights {
  /** width -> vocabulary, no bias: a table of words as its columns. */
  readonly embeddings: Linear;
  readonly layers: readonly GlmLayer[];
  readonly norm: Norm;
  /** width -> vocabulary, no bias. */
  readonly head: Linear;
  /** (maxPositions, headWidth / 2) f32: see rotaryTurns */
  readonly turns: Tensor;
}

/** The id of <unk>, which stands for an image slot among ids, as in the Hugging Face repository. */
export const glmImageId = 0;

/** <sop>, the last id of a prompt, is behind the context. */
const idsBehindContext = 1;

/**
 * @param queries image slots inside the text.
 * @param cacheType f32 under `--dtype f32`, else f16.
 */
export function glmLanguageModel(
  weights: GlmWeights,
  config: GlmConfig,
  { queries, cacheType }: { queries: number; cacheType: "f32" | "f16" },
): LanguageModel {
  const { width, mlpWidth, maxPositions, stopIds } = config;
  return {
    vocabulary: weights.head.columns,
    width,
    widest: Math.max(3 * width, mlpWidth),
    maxPositions,
    prompt: { kind: "prompt", shape: [queries, width] },
    queries,
    imageId: glmImageId,
    slotsAmongIds: true,
    idsBehindContext,
    stopIds,
    cache: { layers: weights.layers.length, width, type: cacheType },
    ...decoderParts({
      embeddings: (k, cursors) => embeddings(k, weights, cursors),
      fillPrompt: (k, x, prompt) => embedPrompt(k, x, prompt, null, queries, 0),
      blocks: blocks(weights, config),
      head: weights.head,
      logits: (k, hidden) => logits(k, weights, hidden),
    }),
  };
}

/** cursors (rows, 4) -> token embeddings (rows, width); image slots are left open */
function embeddings(k: Recorder, w: GlmWeights, cursors: Tensor): Tensor {
  const x = k.scratch("embeddings", [cursors.shape[0] ?? 0, w.embeddings.inputs]);
  embedTokens(k, x, w.embeddings, null, cursors, 0);
  return x;
}

/** x: (rows, width) -> same, block by block, before the final norm */
function blocks(w: GlmWeights, config: GlmConfig): readonly ModelPart<SequenceRows>[] {
  const { width, mlpWidth } = config;
  return w.layers.map((layer, i) => ({
    cost: (rows) => 2 * rows * width * (4 * width + 2 * mlpWidth),
    run: (k, x, rows) => block(k, layer, w.turns, config, given(x), rows, rows.cache[i] as LayerCache),
  }));
}

/**
 * y = norm(x), y = alpha·y + attention(y), then the same with fc2(gelu(fc1(y))): what is added to is the normed input, and
 * alpha = sqrt(2·layers) grows with the model.  x: (rows, width) -> same
 */
function block(
  k: Recorder,
  w: GlmLayer,
  turns: Tensor,
  config: GlmConfig,
  x: Tensor,
  rows: SequenceRows,
  cache: LayerCache,
): Tensor {
  const residualScale = Math.sqrt(2 * config.layers);
  const normed = layerNorm(k, x, w.attentionNorm);
  const attended = matmul(k, selfAttention(k, w, turns, config, normed, rows, cache), w.out, {
    residual: normed,
    residualScale,
  });
  const seen = layerNorm(k, attended, w.mlpNorm);
  const hidden = matmul(k, seen, w.fc1, { activation: "tanh gelu" });
  return matmul(k, hidden, w.fc2, { residual: seen, residualScale });
}

/** Over the context and the cached positions behind it.  x: (rows, width) -> same */
function selfAttention(
  k: Recorder,
  w: GlmLayer,
  turns: Tensor,
  { heads, width }: GlmConfig,
  x: Tensor,
  { cursors, table, contexts }: SequenceRows,
  cache: LayerCache,
): Tensor {
  if (contexts === undefined) throw new ShapeError("glm: expected the lengths of contexts, got none");
  const positions = { rows: blockPositions(k, cursors, contexts), column: 0 };
  const headWidth = width / heads;
  const fused = matmul(k, x, w.qkv); //                                          (rows, 3 * width)
  const turned = rotary(k, fused, turns, positions, { heads: 2 * heads, headWidth }); // (rows, 2 * width)
  const parts = {
    queries: { rows: turned, column: 0 },
    keys: { rows: turned, column: width },
    values: { rows: fused, column: 2 * width },
  };
  const queries = splitIntoCache(k, parts, width, cursors, cache); //            (rows, width)
  return cachedAttention(k, queries, cache, table, cursors, heads, headWidth ** -0.5, { contexts });
}

/** hidden (rows, width) -> (rows, vocabulary) */
function logits(k: Recorder, w: GlmWeights, hidden: Tensor): Tensor {
  return matmul(k, layerNorm(k, hidden, w.norm), w.head);
}
