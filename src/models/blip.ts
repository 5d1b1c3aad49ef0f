// BLIP that writes texts: ViT and text decoder, with the text encoder where it answers questions, as the row programs
// encode, generate and rank. There is no Q-Former: the features are what generate takes.
// Upstream: transformers 4.57.6, models/blip/modeling_blip.py, BlipForConditionalGeneration and BlipForQuestionAnswering.

import type { Gpu } from "../gpu/device.ts";
import type { RowProgram } from "../gpu/row-program.ts";
import { type Activation, type AttentionMaps, featuresForm, type ModelCard, type Pixels } from "../stages.ts";
import { type AttentionRow, decoderAttention } from "./attention-maps.ts";
import type { BlipConfig } from "./blip-config.ts";
import { type BlipDecoderWeights, type BlipEncoderWeights, blipLanguageModel } from "./blip-text.ts";
import { generateProgram } from "./generate.ts";
import type { GenerateRow } from "./generate-row.ts";
import { encodePlan } from "./image-stage.ts";
import { type RankRow, rankProgram } from "./rank.ts";
import { stagedProgram } from "./staged-program.ts";
import type { VitWeights } from "./vit.ts";

/** The parts of the model that this process holds. */
export interface BlipWeights {
  readonly vit?: VitWeights;
  /** Only of a model that answers questions. */
  readonly encoder?: BlipEncoderWeights;
  readonly decoder?: BlipDecoderWeights;
}

export interface BlipPrograms {
  readonly encode?: RowProgram<Pixels, Activation>;
  readonly generate?: RowProgram<GenerateRow, number[]>;
  /** Of the stage generate, too: log-probabilities of given texts. */
  readonly rank?: RowProgram<RankRow, (number | null)[]>;
  /** Where the decoder looked; of the stage generate, and only of a model that captions. */
  readonly attention?: RowProgram<AttentionRow, AttentionMaps>;
}

/** The programs that these weights can serve. @returns them, and how to free their recordings */
export function blipPrograms(
  gpu: Gpu,
  { vit, encoder, decoder }: BlipWeights,
  { vision, text }: BlipConfig,
  card: ModelCard,
): { readonly programs: BlipPrograms; close(): void } {
  const { features } = card;
  const cacheType = featuresForm(card).type;
  const language = decoder && blipLanguageModel(decoder, encoder ?? null, text, { features, cacheType });
  const programs = {
    ...(vit && { encode: stagedProgram(gpu, encodePlan(vit, vision, card)) }),
    ...(language && { generate: generateProgram(gpu, language), rank: rankProgram(gpu, language) }),
    ...(decoder &&
      card.lookers && { attention: decoderAttention(gpu, decoder, decoder.words ?? decoder.head, text, card) }),
  };
  return {
    programs,
    close() {
      for (const program of Object.values(programs)) program.close();
    },
  };
}
