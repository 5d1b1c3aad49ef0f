// BLIP-2: ViT, Q-Former, projection and language model as the row programs encode, query, encodeAndQuery and generate.
// Upstream: transformers 4.57.6, models/blip_2/modeling_blip_2.py, Blip2ForConditionalGeneration.

import type { Gpu } from "../gpu/device.ts";
import type { RowProgram } from "../gpu/row-program.ts";
import { handOver } from "../kernels/hand-over.ts";
import { matmul } from "../kernels/matmul.ts";
import type { Linear } from "../kernels/weights.ts";
import {
  type Activation,
  type AttentionMaps,
  activationType,
  featuresForm,
  type ModelCard,
  type Pixels,
} from "../stages.ts";
import { type AttentionRow, queryAttention } from "./attention-maps.ts";
import type { Blip2ImageConfig, QFormerConfig } from "./blip-2-config.ts";
import { type ModelOfFrames, programByFrames } from "./by-frames.ts";
import { generateProgram } from "./generate.ts";
import type { GenerateRow } from "./generate-row.ts";
import { given } from "./given.ts";
import { activationBytes, activationOf, queryParts } from "./image-stage.ts";
import type { QFormerWeights } from "./q-former.ts";
import { type RankRow, rankProgram } from "./rank.ts";
import { type Part, type StagePlan, stagedProgram } from "./staged-program.ts";
import { blip2EncodePlan, type ClipTowerWeights } from "./vision-tower.ts";
import type { VitWeights } from "./vit.ts";

/** The parts of the model that this process holds. */
export interface Blip2Weights {
  readonly vit?: VitWeights | ClipTowerWeights;
  readonly qFormer?: QFormerWeights;
  /** Q-Former width -> language model width */
  readonly projection?: Linear;
}

/** An image, and what the Q-Former reads beside it. */
export interface InstructedRow {
  readonly features: Activation;
  readonly instructionIds: readonly number[];
}

export interface Blip2Programs {
  readonly encode?: RowProgram<Pixels, Activation>;
  readonly query?: RowProgram<Activation, Activation>;
  /** The same bytes as encode and query: features are rounded in between here too. */
  readonly encodeAndQuery?: RowProgram<Pixels, Activation>;
  /** Instead of the two, where the Q-Former reads an instruction. */
  readonly queryInstructed?: RowProgram<InstructedRow, Activation>;
  readonly generate?: RowProgram<GenerateRow, number[]>;
  /** Of the stage generate, too: log-probabilities of given texts. */
  readonly rank?: RowProgram<RankRow, (number | null)[]>;
  /** Where the model looked; of the stage that looks at the features. */
  readonly attention?: RowProgram<AttentionRow, AttentionMaps>;
}

/** The programs that these weights, and this language model, can serve. @returns them, and how to free their recordings */
export function blip2Programs(
  gpu: Gpu,
  { vit, qFormer, projection }: Blip2Weights,
  language: ModelOfFrames | undefined,
  config: Blip2ImageConfig,
  card: ModelCard,
): { readonly programs: Blip2Programs; close(): void } {
  const features = featuresForm(card);
  const { type } = features;
  const prompt = { kind: "prompt", type, shape: card.prompt } as const;
  const bytesOfFeatures = activationBytes("query", features);
  const encode = vit && blip2EncodePlan(vit, config.vision, card);
  const queryParts = qFormer && projection && qFormerParts(qFormer, projection, config, card);
  const widestPrompt = Math.max(
    card.features[0] * config.qFormer.width,
    card.prompt[0] * Math.max(config.qFormer.mlpWidth, card.prompt[1]),
  );
  const closing: { close(): void }[] = [];
  const make = <In, Out>(plan: StagePlan<In, Out>): RowProgram<In, Out> => {
    const program = stagedProgram(gpu, plan);
    closing.push(program);
    return program;
  };
  const [queries] = card.prompt;
  const generate = language && programByFrames(queries, (frames) => generateProgram(gpu, language(frames)));
  const rank = language && programByFrames(queries, (frames) => rankProgram(gpu, language(frames)));
  if (generate) closing.push(generate);
  if (rank) closing.push(rank);
  const attention = queryParts && qFormer && queryAttention(gpu, qFormer, config, card);
  if (attention) closing.push(attention);
  const programs: Blip2Programs = {
    ...(encode && { encode: make(encode) }),
    ...(queryParts && {
      query: make({
        name: "query",
        inputs: [features],
        bytesOf: (row: Activation) => [bytesOfFeatures(row)],
        parts: queryParts,
        ...activationOf(prompt),
        widest: Math.max(widestPrompt, card.features[0] * card.features[1]),
      }),
    }),
    ...(encode &&
      queryParts && {
        encodeAndQuery: make({
          ...encode,
          name: "encode and query",
          parts: [...encode.parts, ...queryParts],
          ...activationOf(prompt),
          widest: Math.max(encode.widest, widestPrompt),
        }),
      }),
    ...(generate && { generate }),
    ...(rank && { rank }),
    ...(attention && { attention }),
  };
  return {
    programs,
    close() {
      for (const each of closing) each.close();
    },
  };
}

/** features (batch * tokens, imageWidth) in the type of a hand-over -> prompt (batch * queries, llmWidth) in the same */
export function qFormerParts(
  w: QFormerWeights,
  projection: Linear,
  config: { qFormer: QFormerConfig; queries: number },
  card: ModelCard,
): readonly Part[] {
  const end: Part = {
    cost: 2 * config.queries * projection.inputs * projection.columns,
    run: (k, [, x]) => [handOver(k, matmul(k, given(x), projection), activationType(card.dtype))],
  };
  return [...queryParts(w, config, card), end];
}
