// The kinds of BLIP: a checkpoint of each, checked.

import type { ContrastCard, Dtype, ModelCard } from "../stages.ts";
import { type Checkpoint, readSettings } from "../weights/checkpoint.ts";
import type { DigestOptions } from "../weights/digest.ts";
import {
  blipCaptionNames,
  blipDecoderNames,
  blipEncoderNames,
  blipRetrievalHeadNames,
  blipRetrievalNames,
  blipVqaNames,
} from "../weights/names/blip.ts";
import { vitNames } from "../weights/names/blip-2-opt.ts";
import type { NameTable } from "../weights/names/tensor-names.ts";
import { type BlipPrograms, blipPrograms } from "./blip.ts";
import { blip2ImageSettings } from "./blip-2-config.ts";
import type { RetrievalPrograms } from "./blip-2-retrieval.ts";
import { type BlipConfig, blipConfig, blipVqaConfig } from "./blip-config.ts";
import { blipRetrievalPrograms } from "./blip-retrieval.ts";
import { type CheckedModel, checkCheckpoint, checkedModel } from "./checked-model.ts";

/** BlipForConditionalGeneration. @param json config.json. @throws as checkModel */
export async function checkBlipCaption(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: DigestOptions,
): Promise<CheckedModel<ModelCard, BlipPrograms>> {
  const config = blipConfig(checkpoint.ref, json);
  const card = await textCard(checkpoint, config, "blip-caption", blipCaptionNames(config), dtype, options);
  const parts = { encode: { vit: vitNames(config) }, generate: { decoder: blipDecoderNames(config) } };
  return checkedModel(card, parts, (gpu, weights) => blipPrograms(gpu, weights, config, card));
}

/** BlipForQuestionAnswering. @param json config.json. @throws as checkModel */
export async function checkBlipVqa(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: DigestOptions,
): Promise<CheckedModel<ModelCard, BlipPrograms>> {
  const config = blipVqaConfig(checkpoint.ref, json);
  const card = await textCard(checkpoint, config, "blip-vqa", blipVqaNames(config), dtype, options);
  const parts = {
    encode: { vit: vitNames(config) },
    generate: { encoder: blipEncoderNames(config), decoder: blipDecoderNames(config) },
  };
  return checkedModel(card, parts, (gpu, weights) => blipPrograms(gpu, weights, config, card));
}

/** BlipForImageTextRetrieval. @param json config.json. @throws as checkModel */
export async function checkBlipRetrieval(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: DigestOptions,
): Promise<CheckedModel<ContrastCard, RetrievalPrograms>> {
  const config = blipConfig(checkpoint.ref, json);
  const { projectionWidth, text } = config;
  const facts = {
    ...(await visionFacts(checkpoint, config)),
    widths: { image_text_hidden_size: projectionWidth },
    names: blipRetrievalNames(config),
  };
  const card: ContrastCard = {
    ...(await checkCheckpoint(checkpoint, dtype, facts, options)),
    family: "blip-retrieval",
    vectors: [1, projectionWidth],
    maxPositions: text.maxPositions,
  };
  const parts = {
    encode: { vit: vitNames(config) },
    query: { encoder: blipEncoderNames(config), heads: blipRetrievalHeadNames(config) },
  };
  return checkedModel(card, parts, (gpu, weights) => blipRetrievalPrograms(gpu, weights, config, card));
}

async function textCard(
  checkpoint: Checkpoint,
  config: BlipConfig,
  family: "blip-caption" | "blip-vqa",
  names: NameTable,
  dtype: Dtype,
  options: DigestOptions,
): Promise<ModelCard> {
  const facts = { ...(await visionFacts(checkpoint, config)), widths: {}, names };
  const shared = await checkCheckpoint(checkpoint, dtype, facts, options);
  return {
    ...shared,
    family,
    handsOver: "features",
    prompt: shared.features,
    maxPositions: config.text.maxPositions,
    ...(family === "blip-vqa" ? { encodesText: true, answersKept } : { lookers: "ids" }),
  };
}

/** Given answers that rank_answer of the original compares whole, by default. */
const answersKept = 128;

async function visionFacts(checkpoint: Checkpoint, { vision }: BlipConfig) {
  const json = await readSettings(checkpoint, "preprocessor_config.json");
  return { vision, image: blip2ImageSettings(checkpoint.ref, json, vision.imageSize) };
}
