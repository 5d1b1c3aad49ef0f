// VisualGLM: a checkpoint, checked. Its image half is BLIP-2's under other names, so that BLIP-2's programs serve it.

import { type Dtype, featuresForm, type ModelCard } from "../stages.ts";
import { type Checkpoint, readSettings } from "../weights/checkpoint.ts";
import { computed } from "../weights/names/tensor-names.ts";
import {
  glmNames,
  visualGlmLayout,
  visualGlmNames,
  visualGlmProjectionNames,
  visualGlmQFormerNames,
  visualGlmVitNames,
} from "../weights/names/visualglm.ts";
import { type Blip2Programs, blip2Programs } from "./blip-2.ts";
import type { ModelOfFrames } from "./by-frames.ts";
import { type CheckedModel, checkCheckpoint, checkedModel } from "./checked-model.ts";
import { glmLanguageModel } from "./glm.ts";
import { type GlmConfig, visualGlmConfig, visualGlmImageSettings } from "./glm-config.ts";
import { rotaryFrequencies, rotaryTurns } from "./rotary-turns.ts";
import { type CheckOptions, isResized, withSettings } from "./run-settings.ts";

/** Its SentencePiece model; there is no tokenizer.json. */
const tokenizer = "ice_text.model";

/** ChatGLMForConditionalGenerationWithImage. @param json config.json. @throws as checkModel */
export async function checkVisualGlm(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
): Promise<CheckedModel<ModelCard, Blip2Programs>> {
  const { ref, tensors } = checkpoint;
  const written = visualGlmConfig(ref, json);
  const config = withSettings(ref, written, null, options.settings);
  const { vision, queries, text } = config;
  const layout = visualGlmLayout(tensors.keys());
  const processor = await readSettings(checkpoint, "preprocessor_config.json");
  const facts = {
    vision,
    written: written.vision,
    image: visualGlmImageSettings(ref, processor, vision.imageSize, isResized(vision, options.settings)),
    widths: { hidden_size: text.width },
    names: visualGlmNames(config, layout),
    tokenizer,
  };
  const card: ModelCard = {
    ...(await checkCheckpoint(checkpoint, dtype, facts, options)),
    family: "visualglm",
    handsOver: "prompt",
    lookers: "queries",
    answersAlone: true,
    prompt: [queries, text.width],
    maxPositions: text.maxPositions,
  };
  const parts = {
    encode: { vit: visualGlmVitNames(config, layout) },
    query: { qFormer: visualGlmQFormerNames(config, layout), projection: visualGlmProjectionNames(config, layout) },
    generate: { glm: { ...glmNames(config, layout), turns: turnsOf(text) } },
  };
  return checkedModel(card, parts, (gpu, weights) => {
    const { glm } = weights;
    const cacheType = featuresForm(card).type;
    const language: ModelOfFrames | undefined =
      glm && ((frames) => glmLanguageModel(glm, text, { queries: frames * queries, cacheType }));
    return blip2Programs(gpu, weights, language, config, card);
  });
}

/** Both halves of a head are turned by the same table, each by its own position. */
export function turnsOf({ width, heads, maxPositions }: GlmConfig) {
  const half = width / heads / 2;
  return computed("turns", [maxPositions, half], () => rotaryTurns(rotaryFrequencies(half, rotaryBase), maxPositions));
}

const rotaryBase = 10_000;
