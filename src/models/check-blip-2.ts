// The kinds of BLIP-2: a checkpoint of each, checked.

import { type ContrastCard, type Dtype, featuresForm, type ModelCard } from "../stages.ts";
import type { Checkpoint } from "../weights/checkpoint.ts";
import { blip2OptNames, optNames, projectionNames, qFormerNames, visionNames } from "../weights/names/blip-2-opt.ts";
import { blip2RetrievalNames, qFormerWithTextNames, retrievalHeadNames } from "../weights/names/blip-2-retrieval.ts";
import { blip2T5Names, t5Names } from "../weights/names/blip-2-t5.ts";
import { type Blip2Programs, blip2Programs } from "./blip-2.ts";
import { type Blip2ImageConfig, blip2Config, blip2RetrievalConfig, blip2T5Config } from "./blip-2-config.ts";
import { type RetrievalPrograms, retrievalPrograms } from "./blip-2-retrieval.ts";
import type { ModelOfFrames } from "./by-frames.ts";
import { type CheckedModel, checkCheckpoint, checkedModel } from "./checked-model.ts";
import { lavisTextLengths, readingTexts } from "./lavis-texts.ts";
import { optLanguageModel } from "./opt.ts";
import { bucketsOfBoth } from "./relative-buckets.ts";
import { type CheckOptions, type LavisVision, lavisBlip2, lavisBlip2Clip, withSettings } from "./run-settings.ts";
import { mostIds, t5LanguageModel } from "./t5.ts";
import { visionFacts } from "./vision-facts.ts";

/** Blip2ForConditionalGeneration with OPT. @param json config.json. @throws as checkModel */
export async function checkBlip2Opt(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
): Promise<CheckedModel<ModelCard, Blip2Programs>> {
  const written = blip2Config(checkpoint.ref, json);
  const config = withSettings(checkpoint.ref, written, lavisOf(written), options.settings);
  const { queries, text } = config;
  const facts = {
    ...(await visionFacts(checkpoint, config, written, options)),
    widths: { "text_config.hidden_size": text.width },
    names: blip2OptNames(config),
  };
  const card: ModelCard = {
    ...(await checkCheckpoint(checkpoint, dtype, facts, options)),
    family: "blip-2-opt",
    handsOver: "prompt",
    prompt: [queries, text.width],
    lookers: "queries",
    maxPositions: text.maxPositions,
  };
  const parts = {
    encode: { vit: visionNames(config) },
    query: { qFormer: qFormerNames(config), projection: projectionNames(config) },
    generate: { opt: optNames(config) },
  };
  const { imageId } = config;
  return checkedModel(card, parts, (gpu, weights) => {
    const { opt } = weights;
    const cacheType = featuresForm(card).type;
    const language: ModelOfFrames | undefined =
      opt && ((frames) => optLanguageModel(opt, text, { queries: frames * queries, imageId, cacheType }));
    return blip2Programs(gpu, weights, language, config, card);
  });
}

/** Blip2ForConditionalGeneration with T5. @param json config.json. @throws as checkModel */
export async function checkBlip2T5(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
): Promise<CheckedModel<ModelCard, Blip2Programs>> {
  const written = blip2T5Config(checkpoint.ref, json);
  const config = withSettings(checkpoint.ref, written, lavisOf(written), options.settings);
  const { queries, text } = config;
  const facts = {
    ...(await visionFacts(checkpoint, config, written, options)),
    widths: { "text_config.d_model": text.width },
    names: blip2T5Names(config),
  };
  const card: ModelCard = {
    ...(await checkCheckpoint(checkpoint, dtype, facts, options)),
    family: "blip-2-t5",
    handsOver: "prompt",
    prompt: [queries, text.width],
    lookers: "queries",
    maxPositions: mostIds,
    encodesText: true,
  };
  const parts = {
    encode: { vit: visionNames(config) },
    query: { qFormer: qFormerNames(config), projection: projectionNames(config) },
    generate: { t5: t5Names(config, bucketsOfBoth(text.relativePositions)) },
  };
  return checkedModel(card, parts, (gpu, weights) => {
    const { t5 } = weights;
    const cacheType = featuresForm(card).type;
    const language: ModelOfFrames | undefined =
      t5 && ((frames) => t5LanguageModel(t5, text, { queries: frames * queries, cacheType }));
    return blip2Programs(gpu, weights, language, config, card);
  });
}

/** Blip2ForImageTextRetrieval. @param json config.json. @throws as checkModel */
export async function checkBlip2Retrieval(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
): Promise<CheckedModel<ContrastCard, RetrievalPrograms>> {
  const written = blip2RetrievalConfig(checkpoint.ref, json);
  const config = withSettings(checkpoint.ref, written, lavisOf(written), options.settings);
  const { queries, projectionWidth, text } = config;
  const facts = {
    ...(await visionFacts(checkpoint, config, written, options)),
    widths: { image_text_hidden_size: projectionWidth },
    names: blip2RetrievalNames(config),
  };
  const card: ContrastCard = {
    ...(await checkCheckpoint(checkpoint, dtype, facts, options)),
    family: "blip-2-retrieval",
    vectors: [queries, projectionWidth],
    maxPositions: text.maxPositions,
  };
  const parts = {
    encode: { vit: visionNames(config) },
    query: { qFormer: qFormerWithTextNames(config), heads: retrievalHeadNames(config) },
  };
  const isLavis = options.settings?.behaviour === "lavis";
  return checkedModel(card, parts, (gpu, weights) => {
    const opened = retrievalPrograms(gpu, weights, config, card);
    return isLavis ? readingTexts(opened, { most: lavisTextLengths.blip2 }) : opened;
  });
}

function lavisOf({ vision }: Blip2ImageConfig): LavisVision {
  return "activation" in vision ? lavisBlip2Clip : lavisBlip2;
}
