// CLIP: two encoders as the row programs encode, queryImage and queryText.
// Upstream: transformers 4.57.6, models/clip/modeling_clip.py, CLIPModel.
//
// An image's vector comes from its class token, which passes the last norm alone; a text's from its end token. Both are
// projected without a bias, and unit vectors.

import type { Gpu } from "../gpu/device.ts";
import type { RowProgram } from "../gpu/row-program.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { view } from "../gpu/view.ts";
import { embedTokens } from "../kernels/embed-tokens.ts";
import { handOver } from "../kernels/hand-over.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { firstRows } from "../kernels/place-rows.ts";
import { selectRowOfEach } from "../kernels/select-rows.ts";
import { takeOver } from "../kernels/take-over.ts";
import type { Linear, Norm } from "../kernels/weights.ts";
import {
  type Activation,
  activationType,
  type CheckpointCard,
  type ContrastCard,
  featuresForm,
  type Vectors,
} from "../stages.ts";
import type { OpenedPrograms } from "./checked-model.ts";
import { type ClipConfig, type ClipTextConfig, type ClipVisionConfig, endToken } from "./clip-config.ts";
import { type ClipLayer, clipBlock } from "./clip-encoder.ts";
import {
  type ContrastPrograms,
  checkedLength,
  cursorBytes,
  cursorsOf,
  numberBytes,
  oneNumber,
  unitVectors,
  vectorsOf,
} from "./contrast.ts";
import { given } from "./given.ts";
import { activationBytes, encodeStage } from "./image-stage.ts";
import { type Part, type StagedProgram, stagedProgram, textProgram } from "./staged-program.ts";
import { imageEmbeddings } from "./vit.ts";

export interface ClipVisionWeights {
  /** (width) */
  readonly classEmbedding: Tensor;
  /** (tokens, width), the class token first */
  readonly positions: Tensor;
  /** 3 * patch * patch -> width, no bias */
  readonly patches: Linear;
  /** Over class token, patches and positions, before the first block. */
  readonly preNorm: Norm;
  readonly layers: readonly ClipLayer[];
}

/** What makes an image's vector of the class token's features. */
export interface ClipImageHead {
  readonly norm: Norm;
  /** width -> projectionWidth, no bias */
  readonly projection: Linear;
}

export interface ClipTextWeights {
  /** width -> vocabulary, no bias: a table of words as its columns */
  readonly words: Linear;
  /** (positions, width) */
  readonly positions: Tensor;
  readonly layers: readonly ClipLayer[];
  readonly norm: Norm;
  /** width -> projectionWidth, no bias */
  readonly projection: Linear;
}

/** The parts of the model that this process holds. */
export interface ClipWeights {
  readonly vision?: ClipVisionWeights;
  readonly imageHead?: ClipImageHead;
  readonly text?: ClipTextWeights;
}

/** The programs that these weights can serve. @returns them, and how to free their recordings */
export function clipPrograms(
  gpu: Gpu,
  { vision, imageHead, text }: ClipWeights,
  config: ClipConfig,
  card: ContrastCard,
): OpenedPrograms<ContrastPrograms> {
  const programs = {
    ...(vision && {
      encode: stagedProgram(gpu, encodeStage(card, visionParts(vision, config, card), widestOfVision(config.vision))),
    }),
    ...(imageHead && { queryImage: queryImageProgram(gpu, imageHead, card) }),
    ...(text && { queryText: queryTextProgram(gpu, text, config, card) }),
  };
  return {
    programs,
    close() {
      for (const program of Object.values(programs)) program.close();
    },
  };
}

/** f32 values of the widest activation of the ViT, for one image. */
export function widestOfVision(vision: ClipVisionConfig): number {
  const tokens = Math.floor(vision.imageSize / vision.patchSize) ** 2 + 1;
  return tokens * Math.max(vision.width, vision.mlpWidth, 3 * vision.patchSize ** 2);
}

function queryImageProgram(gpu: Gpu, w: ClipImageHead, card: ContrastCard): StagedProgram<Activation, Vectors> {
  const form = featuresForm(card);
  const bytesOf = activationBytes("query", form);
  return stagedProgram(gpu, {
    name: "query image",
    inputs: [form],
    bytesOf: (row: Activation) => [bytesOf(row)],
    parts: [imageHeadPart(w, card)],
    ...vectorsOf(form.type, card.vectors),
    widest: card.features[0] * card.features[1],
  });
}

function queryTextProgram(
  gpu: Gpu,
  w: ClipTextWeights,
  { text }: ClipConfig,
  card: ContrastCard,
): RowProgram<readonly number[], Vectors> & { close(): void } {
  const { type } = featuresForm(card);
  const lengthOf = (ids: readonly number[]) => checkedLength(text, ids);
  return textProgram(gpu, "query text", lengthOf, (textRows) => ({
    name: `query text of ${textRows}`,
    inputs: [cursorsOf(textRows), oneNumber],
    bytesOf: (ids) => [cursorBytes(ids, textRows), numberBytes(endToken(text, ids))],
    parts: textParts(w, text, card, textRows),
    ...vectorsOf(type, [1, card.vectors[1]]),
    widest: textRows * Math.max(text.width, text.mlpWidth),
  }));
}

/** pixels (batch * 3, height, width) -> features (batch * tokens, width) in the type of a hand-over */
export function visionParts(
  w: ClipVisionWeights,
  { vision }: Pick<ClipConfig, "vision">,
  card: Pick<CheckpointCard, "image" | "features" | "dtype">,
): readonly Part[] {
  const end: Part = { cost: 0, run: (k, [x]) => [handOver(k, given(x), activationType(card.dtype))] };
  return [...visionBlocks(w, vision, card), end];
}

/** pixels (batch * 3, height, width) -> (batch * tokens, width) f32, after the last block */
export function visionBlocks(
  w: ClipVisionWeights,
  vision: ClipVisionConfig,
  card: Pick<CheckpointCard, "image" | "features">,
): readonly Part[] {
  const { patchSize, heads, width, activation } = vision;
  const { image } = card;
  const [tokens] = card.features;
  const embed: Part = {
    cost: 2 * tokens * 3 * patchSize ** 2 * width,
    run(k, [pixels], batch) {
      const images = view(given(pixels), [batch, 3, image.height, image.width]);
      return [layerNorm(k, imageEmbeddings(k, w, images, { batch, patchSize, heads }), w.preNorm)];
    },
  };
  const blocks = w.layers.map(
    (layer): Part => ({
      cost: blockCost(vision, tokens),
      run: (k, [x], batch) => [clipBlock(k, layer, given(x), { batch, heads, activation, causal: false })],
    }),
  );
  return [embed, ...blocks];
}

/** features (batch * tokens, width) in the type of a hand-over -> unit vectors (batch, projectionWidth) in the same */
export function imageHeadPart(w: ClipImageHead, card: ContrastCard): Part {
  return {
    cost: 2 * w.projection.inputs * w.projection.columns,
    run(k, [features], batch) {
      const classToken = firstRows(k, takeOver(k, given(features)), batch); // (batch, width)
      return [unitVectors(k, w.projection, layerNorm(k, classToken, w.norm), card)];
    },
  };
}

/**
 * cursors (batch * textRows, 4), place of each text's end token (batch) -> unit vectors (batch, projectionWidth) in the
 * type of a hand-over
 */
export function textParts(
  w: ClipTextWeights,
  text: ClipTextConfig,
  card: Pick<ContrastCard, "dtype">,
  textRows: number,
): readonly Part[] {
  const { heads, activation } = text;
  const begin: Part = {
    cost: 0,
    run(k, [cursors, ends], batch) {
      const x = k.scratch("text", [batch * textRows, text.width]);
      embedTokens(k, x, w.words, w.positions, given(cursors), 0);
      return [x, given(ends)];
    },
  };
  const blocks = w.layers.map(
    (layer): Part => ({
      cost: blockCost(text, textRows),
      run: (k, [x, ends], batch) => [
        clipBlock(k, layer, given(x), { batch, heads, activation, causal: true }),
        given(ends),
      ],
    }),
  );
  const end: Part = {
    cost: 2 * w.projection.inputs * w.projection.columns,
    // The norm is of each row by itself, so that only the rows that count need it.
    run: (k, [x, ends]) => [
      unitVectors(k, w.projection, layerNorm(k, selectRowOfEach(k, given(x), given(ends)), w.norm), card),
    ],
  };
  return [begin, ...blocks, end];
}

/** Floating-point operations of one block for one row, about. */
function blockCost({ width, mlpWidth }: { width: number; mlpWidth: number }, tokens: number): number {
  return 2 * tokens * width * (4 * width + 2 * mlpWidth + 2 * tokens);
}
