// InstructBLIP: ViT, a Q-Former that reads the instruction, projection and language model as the row programs encode,
// queryInstructed, generate, rank and attention. Dai et al., "InstructBLIP: Towards General-purpose Vision-Language Models
// with Instruction Tuning" (2023). Upstream: transformers 4.57.6, models/instructblip/modeling_instructblip.py.
//
// What serves every instruction about an image is its features; there is a prompt for each of them.

import type { Gpu } from "../gpu/device.ts";
import { handOver } from "../kernels/hand-over.ts";
import { matmul } from "../kernels/matmul.ts";
import type { Linear } from "../kernels/weights.ts";
import { type Activation, activationType, featuresForm, type ModelCard } from "../stages.ts";
import { instructedAttention } from "./attention-maps.ts";
import type { Blip2Programs, Blip2Weights, InstructedRow } from "./blip-2.ts";
import { type ModelOfFrames, programByFrames } from "./by-frames.ts";
import type { OpenedPrograms } from "./checked-model.ts";
import { checkedLength, cursorBytes, cursorsOf, numberBytes, oneNumber } from "./contrast.ts";
import { generateProgram } from "./generate.ts";
import { given } from "./given.ts";
import { activationBytes, activationOf, queryAndTextParts, widestWithImage } from "./image-stage.ts";
import type { InstructBlipConfig } from "./instructblip-config.ts";
import type { QFormerWeights } from "./q-former.ts";
import { rankProgram } from "./rank.ts";
import { type Part, type StagedProgram, stagedProgram, textProgram } from "./staged-program.ts";
import { blip2EncodePlan } from "./vision-tower.ts";

/** The programs that these weights, and this language model, can serve. @returns them, and how to free their recordings */
export function instructBlipPrograms(
  gpu: Gpu,
  { vit, qFormer, projection }: Blip2Weights,
  language: ModelOfFrames | undefined,
  config: InstructBlipConfig<unknown>,
  card: ModelCard,
): OpenedPrograms<Blip2Programs> {
  const [queries] = card.prompt;
  const programs = {
    ...(vit && { encode: stagedProgram(gpu, blip2EncodePlan(vit, config.vision, card)) }),
    ...(qFormer &&
      projection && {
        queryInstructed: queryProgram(gpu, qFormer, projection, config, card),
        attention: instructedAttention(gpu, qFormer, config, card),
      }),
    ...(language && {
      generate: programByFrames(queries, (frames) => generateProgram(gpu, language(frames))),
      rank: programByFrames(queries, (frames) => rankProgram(gpu, language(frames))),
    }),
  };
  return {
    programs,
    close() {
      for (const program of Object.values(programs)) program.close();
    },
  };
}

function queryProgram(
  gpu: Gpu,
  w: QFormerWeights,
  projection: Linear,
  config: InstructBlipConfig<unknown>,
  card: ModelCard,
): StagedProgram<InstructedRow, Activation> {
  const features = featuresForm(card);
  const bytesOf = activationBytes("query", features);
  const lengthOf = (row: InstructedRow) => checkedLength(config.instruction, row.instructionIds);
  return textProgram(gpu, "query with instruction", lengthOf, (textRows) => ({
    name: `query with an instruction of ${textRows}`,
    inputs: [features, cursorsOf(textRows), oneNumber],
    bytesOf: (row) => [
      bytesOf(row.features),
      cursorBytes(row.instructionIds, textRows),
      numberBytes(config.queries + row.instructionIds.length),
    ],
    parts: instructedParts(w, projection, config, card, textRows),
    ...activationOf({ kind: "prompt", type: features.type, shape: card.prompt }),
    widest: Math.max(widestWithImage(config, card, textRows), card.prompt[0] * card.prompt[1]),
  }));
}

/**
 * features (batch * tokens, imageWidth) in the type of a hand-over, cursors (batch * textRows, 4), lengths (batch), queries
 * included -> prompt (batch * queries, llmWidth) in the same type; of the sequence only the queries are handed on
 */
export function instructedParts(
  w: QFormerWeights,
  projection: Linear,
  config: InstructBlipConfig<unknown>,
  card: ModelCard,
  textRows: number,
): readonly Part[] {
  const end: Part = {
    cost: 2 * config.queries * projection.inputs * projection.columns,
    run: (k, [, , x]) => [handOver(k, matmul(k, given(x), projection), activationType(card.dtype))],
  };
  return [...queryAndTextParts(w, config, card, textRows), end];
}
