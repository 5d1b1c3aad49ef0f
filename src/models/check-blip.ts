// The kinds of BLIP: a checkpoint of each, checked.

import type { ContrastCard, Dtype, ModelCard } from "../stages.ts";
import type { Checkpoint } from "../weights/checkpoint.ts";
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
import type { RetrievalPrograms } from "./blip-2-retrieval.ts";
import { type BlipConfig, blipConfig, blipVqaConfig } from "./blip-config.ts";
import { blipRetrievalPrograms } from "./blip-retrieval.ts";
import { type CheckedModel, checkCheckpoint, checkedModel } from "./checked-model.ts";
import { type LavisTexts, lavisTextLengths, readingQuestions, readingTexts } from "./lavis-texts.ts";
import { type CheckOptions, lavisBlip, lavisBlipVqa, tokenId, withSettings } from "./run-settings.ts";
import { visionFacts } from "./vision-facts.ts";

/** BlipForConditionalGeneration. @param json config.json. @throws as checkModel */
export async function checkBlipCaption(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
): Promise<CheckedModel<ModelCard, BlipPrograms>> {
  const written = blipConfig(checkpoint.ref, json);
  const config = withSettings(checkpoint.ref, written, lavisBlip, options.settings);
  const card = await textCard(
    checkpoint,
    { config, written },
    "blip-caption",
    blipCaptionNames(config),
    dtype,
    options,
  );
  const parts = { encode: { vit: vitNames(config) }, generate: { decoder: blipDecoderNames(config) } };
  return checkedModel(card, parts, (gpu, weights) => blipPrograms(gpu, weights, config, card));
}

/** BlipForQuestionAnswering. @param json config.json. @throws as checkModel */
export async function checkBlipVqa(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
): Promise<CheckedModel<ModelCard, BlipPrograms>> {
  const written = blipVqaConfig(checkpoint.ref, json);
  const config = withSettings(checkpoint.ref, written, lavisBlipVqa, options.settings);
  const card = await textCard(checkpoint, { config, written }, "blip-vqa", blipVqaNames(config), dtype, options);
  const parts = {
    encode: { vit: vitNames(config) },
    generate: { encoder: blipEncoderNames(config), decoder: blipDecoderNames(config) },
  };
  const texts = await lavisTexts(checkpoint, options);
  return checkedModel(card, parts, (gpu, weights) => {
    const opened = blipPrograms(gpu, weights, config, card);
    return texts === null ? opened : readingQuestions(opened, texts);
  });
}

/** BlipForImageTextRetrieval. @param json config.json. @throws as checkModel */
export async function checkBlipRetrieval(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
): Promise<CheckedModel<ContrastCard, RetrievalPrograms>> {
  const written = blipConfig(checkpoint.ref, json);
  const config = withSettings(checkpoint.ref, written, lavisBlip, options.settings);
  const { projectionWidth, text } = config;
  const facts = {
    ...(await visionFacts(checkpoint, config, written, options)),
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
  const texts = await lavisTexts(checkpoint, options);
  return checkedModel(card, parts, (gpu, weights) => {
    const opened = blipRetrievalPrograms(gpu, weights, config, card);
    return texts === null ? opened : readingTexts(opened, texts);
  });
}

/** How texts are read otherwise than transformers reads them; null: they are not. */
async function lavisTexts(checkpoint: Checkpoint, { settings }: CheckOptions): Promise<LavisTexts | null> {
  if (settings?.behaviour !== "lavis") return null;
  return { most: lavisTextLengths.blip, imageReader: await tokenId(checkpoint, "[ENC]") };
}

async function textCard(
  checkpoint: Checkpoint,
  { config, written }: { readonly config: BlipConfig; readonly written: BlipConfig },
  family: "blip-caption" | "blip-vqa",
  names: NameTable,
  dtype: Dtype,
  options: CheckOptions,
): Promise<ModelCard> {
  const facts = { ...(await visionFacts(checkpoint, config, written, options)), widths: {}, names };
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
