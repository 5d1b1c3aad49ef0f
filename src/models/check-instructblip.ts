// InstructBLIP with Vicuna and with T5: a checkpoint of each, checked.

import { type Dtype, featuresForm, type ModelCard } from "../stages.ts";
import { type Checkpoint, readSettings } from "../weights/checkpoint.ts";
import { CheckpointError } from "../weights/errors.ts";
import { projectionNames, visionNames } from "../weights/names/blip-2-opt.ts";
import { t5Names } from "../weights/names/blip-2-t5.ts";
import {
  instructBlipLlamaNames,
  instructBlipT5Names,
  instructedQFormerNames,
  llamaNames,
} from "../weights/names/instructblip.ts";
import type { NameTable } from "../weights/names/tensor-names.ts";
import type { Blip2Programs } from "./blip-2.ts";
import type { Blip2ImageConfig } from "./blip-2-config.ts";
import type { ModelOfFrames } from "./by-frames.ts";
import { type CheckedModel, checkCheckpoint, checkedModel } from "./checked-model.ts";
import type { Family } from "./families.ts";
import { instructBlipPrograms } from "./instructblip.ts";
import {
  type InstructBlipConfig,
  instructBlipImageSettings,
  instructBlipLlamaConfig,
  instructBlipT5Config,
} from "./instructblip-config.ts";
import { llamaLanguageModel } from "./llama.ts";
import { bucketsOfBoth } from "./relative-buckets.ts";
import { rotaryFrequencies, rotaryTurns } from "./rotary-turns.ts";
import { type CheckOptions, isResized, withSettings } from "./run-settings.ts";
import { mostIds, t5LanguageModel } from "./t5.ts";

/** InstructBlipForConditionalGeneration with Llama. @param json config.json. @throws as checkModel */
export async function checkInstructBlipLlama(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
): Promise<CheckedModel<ModelCard, Blip2Programs>> {
  const written = instructBlipLlamaConfig(checkpoint.ref, json);
  const config = withSettings(checkpoint.ref, written, null, options.settings);
  const { queries, imageId, text } = config;
  const facts = { written, widthKey: "text_config.hidden_size", names: instructBlipLlamaNames(config) };
  const card: ModelCard = {
    ...(await checkedCard(checkpoint, dtype, "instructblip-vicuna", config, facts, options)),
    maxPositions: text.maxPositions,
  };
  const turns = () => rotaryTurns(rotaryFrequencies(text.headWidth, text.rotaryBase), text.maxPositions);
  const parts = {
    encode: { vit: visionNames(config) },
    query: { qFormer: instructedQFormerNames(config), projection: projectionNames(config) },
    generate: { llama: llamaNames(config, turns) },
  };
  return checkedModel(card, parts, (gpu, weights) => {
    const { llama } = weights;
    const cacheType = featuresForm(card).type;
    const language: ModelOfFrames | undefined =
      llama && ((frames) => llamaLanguageModel(llama, text, { queries: frames * queries, imageId, cacheType }));
    return instructBlipPrograms(gpu, weights, language, config, card);
  });
}

/** The same with T5. */
export async function checkInstructBlipT5(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
): Promise<CheckedModel<ModelCard, Blip2Programs>> {
  const written = instructBlipT5Config(checkpoint.ref, json);
  const config = withSettings(checkpoint.ref, written, null, options.settings);
  const { queries, text } = config;
  const facts = { written, widthKey: "text_config.d_model", names: instructBlipT5Names(config) };
  const card: ModelCard = {
    ...(await checkedCard(checkpoint, dtype, "instructblip-t5", config, facts, options)),
    maxPositions: mostIds,
    encodesText: true,
  };
  const parts = {
    encode: { vit: visionNames(config) },
    query: { qFormer: instructedQFormerNames(config), projection: projectionNames(config) },
    generate: { t5: t5Names(config, bucketsOfBoth(text.relativePositions)) },
  };
  return checkedModel(card, parts, (gpu, weights) => {
    const { t5 } = weights;
    const cacheType = featuresForm(card).type;
    const language: ModelOfFrames | undefined =
      t5 && ((frames) => t5LanguageModel(t5, text, { queries: frames * queries, cacheType }));
    return instructBlipPrograms(gpu, weights, language, config, card);
  });
}

/** What both are known by, but for the positions of the language model. */
async function checkedCard(
  checkpoint: Checkpoint,
  dtype: Dtype,
  family: Family,
  config: InstructBlipConfig<{ readonly width: number }>,
  {
    written,
    widthKey,
    names,
  }: { readonly written: Blip2ImageConfig; readonly widthKey: string; readonly names: NameTable },
  options: CheckOptions,
): Promise<Omit<ModelCard, "maxPositions">> {
  const { ref } = checkpoint;
  const { vision, queries, instruction, text } = config;
  if ((await readSettings(checkpoint, "qformer_tokenizer/tokenizer.json")) === null) {
    throw new CheckpointError(
      `${ref}: expected qformer_tokenizer/tokenizer.json, got no such file; save the Q-Former's fast tokenizer there`,
    );
  }
  const image = instructBlipImageSettings(
    ref,
    await readSettings(checkpoint, "preprocessor_config.json"),
    vision.imageSize,
    isResized(vision, options.settings),
  );
  const facts = { vision, written: written.vision, image, widths: { [widthKey]: text.width }, names };
  return {
    ...(await checkCheckpoint(checkpoint, dtype, facts, options)),
    family,
    handsOver: "prompt",
    lookers: "queries",
    prompt: [queries, text.width],
    instruction: { maxIds: instruction.maxPositions },
  };
}
