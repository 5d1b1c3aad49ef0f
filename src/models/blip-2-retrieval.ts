// BLIP-2 that compares images with texts: ViT and Q-Former as the row programs encode, queryImage, queryText and queryBoth.
// Upstream: transformers 4.57.6, models/blip_2/modeling_blip_2.py, Blip2ForImageTextRetrieval.
//
// Contrast: the queries read the image alone, the text is read alone, and both become unit vectors; an image and a text
// are as close as the closest of the image's vectors. Matching: queries and text read each other and the image, and the
// logits of all queries are averaged.

import type { Gpu } from "../gpu/device.ts";
import type { RowProgram } from "../gpu/row-program.ts";
import { matmul } from "../kernels/matmul.ts";
import { meanRows } from "../kernels/mean-rows.ts";
import { firstRows } from "../kernels/place-rows.ts";
import type { Linear } from "../kernels/weights.ts";
import { type Activation, type ContrastCard, featuresForm, type MatchLogits, type Vectors } from "../stages.ts";
import type { Blip2RetrievalConfig } from "./blip-2-config.ts";
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
import { activationBytes, qFormerCost, queryAndTextParts, queryParts, widestWithImage } from "./image-stage.ts";
import { type QFormerWeights, qFormerBlock, textEmbeddings } from "./q-former.ts";
import { type Part, type StagedProgram, stagedProgram, textProgram } from "./staged-program.ts";
import { blip2EncodePlan, type ClipTowerWeights } from "./vision-tower.ts";
import type { VitWeights } from "./vit.ts";

/** What turns the Q-Former's rows into vectors and logits. */
export interface RetrievalHeads {
  /** width -> projectionWidth, of the queries */
  readonly vision: Linear;
  /** width -> projectionWidth, of the text's first row */
  readonly text: Linear;
  /** width -> 2: no match, match */
  readonly match: Linear;
}

/** The parts of the model that this process holds. */
export interface RetrievalWeights {
  readonly vit?: VitWeights | ClipTowerWeights;
  readonly qFormer?: QFormerWeights;
  readonly heads?: RetrievalHeads;
}

/** An image and a text that are to be matched. */
export interface MatchRow {
  readonly features: Activation;
  readonly textIds: readonly number[];
}

export interface RetrievalPrograms extends ContrastPrograms {
  readonly queryBoth?: RowProgram<MatchRow, MatchLogits>;
}

/** The programs that these weights can serve. @returns them, and how to free their recordings */
export function retrievalPrograms(
  gpu: Gpu,
  { vit, qFormer, heads }: RetrievalWeights,
  config: Blip2RetrievalConfig,
  card: ContrastCard,
): { readonly programs: RetrievalPrograms; close(): void } {
  const programs = {
    ...(vit && { encode: stagedProgram(gpu, blip2EncodePlan(vit, config.vision, card)) }),
    ...(qFormer &&
      heads && {
        queryImage: queryImageProgram(gpu, qFormer, heads.vision, config, card),
        queryText: queryTextProgram(gpu, qFormer, heads.text, config, card),
        queryBoth: queryBothProgram(gpu, qFormer, heads.match, config, card),
      }),
  };
  return {
    programs,
    close() {
      for (const program of Object.values(programs)) program.close();
    },
  };
}

function queryImageProgram(
  gpu: Gpu,
  w: QFormerWeights,
  projection: Linear,
  config: Blip2RetrievalConfig,
  card: ContrastCard,
): StagedProgram<Activation, Vectors> {
  const form = featuresForm(card);
  const bytesOf = activationBytes("query", form);
  return stagedProgram(gpu, {
    name: "query image",
    inputs: [form],
    bytesOf: (row: Activation) => [bytesOf(row)],
    parts: imageParts(w, projection, config, card),
    ...vectorsOf(form.type, card.vectors),
    widest: widestWithImage(config, card, 0),
  });
}

function queryTextProgram(
  gpu: Gpu,
  w: QFormerWeights,
  projection: Linear,
  config: Blip2RetrievalConfig,
  card: ContrastCard,
): StagedProgram<readonly number[], Vectors> {
  const { type } = featuresForm(card);
  const { width, mlpWidth } = config.qFormer;
  const lengthOf = (ids: readonly number[]) => checkedLength(config.text, ids);
  return textProgram(gpu, "query text", lengthOf, (textRows) => ({
    name: `query text of ${textRows}`,
    inputs: [cursorsOf(textRows), oneNumber],
    bytesOf: (ids) => [cursorBytes(ids, textRows), numberBytes(ids.length)],
    parts: textParts(w, projection, config, card, textRows),
    ...vectorsOf(type, [1, config.projectionWidth]),
    widest: textRows * Math.max(width, mlpWidth),
  }));
}

function queryBothProgram(
  gpu: Gpu,
  w: QFormerWeights,
  head: Linear,
  config: Blip2RetrievalConfig,
  card: ContrastCard,
): StagedProgram<MatchRow, MatchLogits> {
  const form = featuresForm(card);
  const bytesOf = activationBytes("query", form);
  const lengthOf = (row: MatchRow) => checkedLength(config.text, row.textIds);
  return textProgram(gpu, "query both", lengthOf, (textRows) => ({
    name: `query both with texts of ${textRows}`,
    inputs: [form, cursorsOf(textRows), oneNumber],
    bytesOf: ({ features, textIds }) => [
      bytesOf(features),
      cursorBytes(textIds, textRows),
      numberBytes(config.queries + textIds.length),
    ],
    parts: bothParts(w, head, config, card, textRows),
    output: { shape: [1, 2], type: "f32" },
    resultOf(bytes) {
      const [no = Number.NaN, yes = Number.NaN] = new Float32Array(bytes.buffer);
      return [no, yes] as const;
    },
    widest: widestWithImage(config, card, textRows),
  }));
}

/** features (batch * tokens, imageWidth) in the type of a hand-over -> unit vectors (batch * queries, projectionWidth) in the same */
export function imageParts(
  w: QFormerWeights,
  projection: Linear,
  config: Blip2RetrievalConfig,
  card: ContrastCard,
): readonly Part[] {
  const end: Part = {
    cost: 2 * config.queries * projection.inputs * projection.columns,
    run: (k, [, x]) => [unitVectors(k, projection, given(x), card)],
  };
  return [...queryParts(w, config, card), end];
}

/** cursors (batch * textRows, 4), lengths (batch) -> unit vectors (batch, projectionWidth) in the type of a hand-over */
export function textParts(
  w: QFormerWeights,
  projection: Linear,
  { qFormer }: Blip2RetrievalConfig,
  card: ContrastCard,
  textRows: number,
): readonly Part[] {
  const { heads } = qFormer;
  const begin: Part = {
    cost: 0,
    run: (k, [cursors, lengths]) => [textEmbeddings(k, w, given(cursors)), given(lengths)],
  };
  const blocks = w.layers.map(
    (layer): Part => ({
      cost: qFormerCost(layer, qFormer, { queries: 0, textRows, tokens: 0 }),
      run(k, [x, lengths], batch) {
        const sizes = { batch, heads, lengths: given(lengths) };
        const { text } = qFormerBlock(k, layer, { queries: null, text: given(x) }, null, sizes);
        return [given(text), given(lengths)];
      },
    }),
  );
  const end: Part = {
    cost: 2 * projection.inputs * projection.columns,
    run: (k, [x], batch) => [unitVectors(k, projection, firstRows(k, given(x), batch), card)],
  };
  return [begin, ...blocks, end];
}

/**
 * features (batch * tokens, imageWidth) in the type of a hand-over, cursors (batch * textRows, 4), lengths (batch), queries
 * included -> logits (batch, 2)
 */
export function bothParts(
  w: QFormerWeights,
  head: Linear,
  config: Blip2RetrievalConfig,
  card: ContrastCard,
  textRows: number,
): readonly Part[] {
  const end: Part = {
    cost: 2 * config.queries * head.inputs * head.columns,
    run: (k, [, , x], batch) => [meanRows(k, matmul(k, given(x), head), batch)],
  };
  return [...queryAndTextParts(w, config, card, textRows), end];
}
