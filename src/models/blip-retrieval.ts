// BLIP that compares images with texts: ViT and text encoder as the row programs encode, queryImage, queryText and queryBoth.
// Upstream: transformers 4.57.6, models/blip/modeling_blip.py, BlipForImageTextRetrieval.
//
// Contrast: the image's class token and the first token of a text that was read alone become unit vectors, one of each.
// Matching: the text reads the image in every layer, and its first token has the logits.

import type { Gpu } from "../gpu/device.ts";
import { matmul } from "../kernels/matmul.ts";
import { firstRows } from "../kernels/place-rows.ts";
import { takeOver } from "../kernels/take-over.ts";
import type { Linear } from "../kernels/weights.ts";
import { type Activation, type ContrastCard, featuresForm, type MatchLogits, type Vectors } from "../stages.ts";
import type { MatchRow, RetrievalHeads, RetrievalPrograms } from "./blip-2-retrieval.ts";
import type { BlipConfig } from "./blip-config.ts";
import { type BlipEncoderWeights, blipEncoderBlock, blipEncoderCost, blipTextEmbeddings } from "./blip-text.ts";
import { checkedLength, cursorBytes, cursorsOf, numberBytes, oneNumber, unitVectors, vectorsOf } from "./contrast.ts";
import { given } from "./given.ts";
import { activationBytes, encodePlan } from "./image-stage.ts";
import { type Part, type StagedProgram, stagedProgram, textProgram } from "./staged-program.ts";
import type { VitWeights } from "./vit.ts";

/** The parts of the model that this process holds. */
export interface BlipRetrievalWeights {
  readonly vit?: VitWeights;
  readonly encoder?: BlipEncoderWeights;
  /** `vision` is of the features, not of the text's width. */
  readonly heads?: RetrievalHeads;
}

/** The programs that these weights can serve. @returns them, and how to free their recordings */
export function blipRetrievalPrograms(
  gpu: Gpu,
  { vit, encoder, heads }: BlipRetrievalWeights,
  config: BlipConfig,
  card: ContrastCard,
): { readonly programs: RetrievalPrograms; close(): void } {
  const programs = {
    ...(vit && { encode: stagedProgram(gpu, encodePlan(vit, config.vision, card)) }),
    ...(encoder &&
      heads && {
        queryImage: queryImageProgram(gpu, heads.vision, card),
        queryText: queryTextProgram(gpu, encoder, heads.text, config, card),
        queryBoth: queryBothProgram(gpu, encoder, heads.match, config, card),
      }),
  };
  return {
    programs,
    close() {
      for (const program of Object.values(programs)) program.close();
    },
  };
}

function queryImageProgram(gpu: Gpu, projection: Linear, card: ContrastCard): StagedProgram<Activation, Vectors> {
  const form = featuresForm(card);
  const bytesOf = activationBytes("query", form);
  const project: Part = {
    cost: 2 * projection.inputs * projection.columns,
    run: (k, [features], batch) => {
      const classes = firstRows(k, takeOver(k, given(features)), batch); //     (batch, width)
      return [unitVectors(k, projection, classes, card)]; //                    (batch, projectionWidth)
    },
  };
  return stagedProgram(gpu, {
    name: "query image",
    inputs: [form],
    bytesOf: (row: Activation) => [bytesOf(row)],
    parts: [project],
    ...vectorsOf(form.type, card.vectors),
    widest: card.features[0] * card.features[1],
  });
}

function queryTextProgram(
  gpu: Gpu,
  w: BlipEncoderWeights,
  projection: Linear,
  { text }: BlipConfig,
  card: ContrastCard,
): StagedProgram<readonly number[], Vectors> {
  const lengthOf = (ids: readonly number[]) => checkedLength(text, ids);
  const project: Part = {
    cost: 2 * projection.inputs * projection.columns,
    run: (k, [x], batch) => [unitVectors(k, projection, firstRows(k, given(x), batch), card)],
  };
  return textProgram(gpu, "query text", lengthOf, (textRows) => ({
    name: `query text of ${textRows}`,
    inputs: [cursorsOf(textRows), oneNumber],
    bytesOf: (ids) => [cursorBytes(ids, textRows), numberBytes(ids.length)],
    parts: [
      {
        cost: 0,
        run: (k, [cursors, lengths]) => [blipTextEmbeddings(k, w.words, w, given(cursors)), given(lengths)],
      },
      ...w.layers.map(
        (layer): Part => ({
          cost: blipEncoderCost(text, textRows, 0),
          run(k, [x, counts], batch) {
            const lengths = given(counts);
            return [blipEncoderBlock(k, layer, given(x), null, { batch, heads: text.heads, lengths }), lengths];
          },
        }),
      ),
      project,
    ],
    ...vectorsOf(featuresForm(card).type, card.vectors),
    widest: textRows * Math.max(text.width, text.mlpWidth),
  }));
}

function queryBothProgram(
  gpu: Gpu,
  w: BlipEncoderWeights,
  head: Linear,
  { text }: BlipConfig,
  card: ContrastCard,
): StagedProgram<MatchRow, MatchLogits> {
  const form = featuresForm(card);
  const bytesOf = activationBytes("query", form);
  const lengthOf = (row: MatchRow) => checkedLength(text, row.textIds);
  const judge: Part = {
    cost: 2 * head.inputs * head.columns,
    run: (k, [, , x], batch) => [matmul(k, firstRows(k, given(x), batch), head)],
  };
  return textProgram(gpu, "query both", lengthOf, (textRows) => ({
    name: `query both with texts of ${textRows}`,
    inputs: [form, cursorsOf(textRows), oneNumber],
    bytesOf: ({ features, textIds }) => [
      bytesOf(features),
      cursorBytes(textIds, textRows),
      numberBytes(textIds.length),
    ],
    parts: [
      {
        cost: 0,
        run: (k, [features, cursors, lengths]) => [
          takeOver(k, given(features)),
          given(lengths),
          blipTextEmbeddings(k, w.words, w, given(cursors)),
        ],
      },
      ...w.layers.map(
        (layer): Part => ({
          cost: blipEncoderCost(text, textRows, card.features[0]),
          run(k, [features, counts, x], batch) {
            const [image, lengths] = [given(features), given(counts)];
            const y = blipEncoderBlock(k, layer, given(x), image, { batch, heads: text.heads, lengths });
            return [image, lengths, y];
          },
        }),
      ),
      judge,
    ],
    output: { shape: [1, 2], type: "f32" },
    resultOf(bytes) {
      const [no = Number.NaN, yes = Number.NaN] = new Float32Array(bytes.buffer);
      return [no, yes] as const;
    },
    widest: Math.max(card.features[0] * Math.max(card.features[1], text.width), textRows * text.mlpWidth),
  }));
}
