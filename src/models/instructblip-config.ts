// config.json of an InstructBLIP checkpoint -> sizes and settings, or one sentence why not. What it shares with BLIP-2's is read
// by blip-2-config.ts: the classes have the same keys, and the same defaults for them (test/models/instructblip-config.test.ts).

import type { ImageSettings } from "../stages.ts";
import { type Blip2Config, blip2ImageSettings, imageConfig, imageIdOf } from "./blip-2-config.ts";
import { UnsupportedModelError } from "./errors.ts";
import { type LlamaConfig, llamaConfig } from "./llama-config.ts";
import { type T5Config, t5Config } from "./t5-config.ts";

/** InstructBlipForConditionalGeneration */
export interface InstructBlipConfig<Text> extends Blip2Config<Text> {
  /** What the Q-Former reads beside the image. */
  readonly instruction: { readonly vocabulary: number; readonly maxPositions: number };
}

/**
 * With Llama, which Vicuna is.
 * @param ref names the checkpoint in errors
 * @throws ConfigError for a malformed file, UnsupportedModelError for a kind of InstructBLIP that is not built
 */
export function instructBlipLlamaConfig(ref: string, json: Record<string, unknown>): InstructBlipConfig<LlamaConfig> {
  return instructBlipConfig(ref, json, "llama", llamaConfig);
}

/** The same with T5. */
export function instructBlipT5Config(ref: string, json: Record<string, unknown>): InstructBlipConfig<T5Config> {
  return instructBlipConfig(ref, json, "t5", t5Config);
}

function instructBlipConfig<Text>(
  ref: string,
  json: Record<string, unknown>,
  textModel: string,
  textConfig: (text: Readonly<Record<string, unknown>>, ref: string) => Text,
): InstructBlipConfig<Text> {
  const { read, asked, vision, qFormer, queries } = imageConfig(ref, json, { readsText: null });
  const text = read.text_config ?? { model_type: "opt" };
  if (text.model_type !== textModel) {
    throw new UnsupportedModelError(
      `${ref}: expected InstructBLIP with the language model ${textModel}, got ${text.model_type}`,
    );
  }
  return {
    vision,
    qFormer,
    queries,
    imageId: imageIdOf(ref, read),
    instruction: { vocabulary: asked.vocab_size, maxPositions: asked.max_position_embeddings },
    text: textConfig(text, ref),
  };
}

/**
 * As for BLIP-2, but whatever class the file names: transformers takes BlipImageProcessor for InstructBLIP, and published
 * files name the processor of videos.
 * @param json preprocessor_config.json; null when the checkpoint has none
 * @param isChosen as blip2ImageSettings has it
 */
export function instructBlipImageSettings(
  ref: string,
  json: Record<string, unknown> | null,
  imageSize: number,
  isChosen = false,
): ImageSettings {
  return blip2ImageSettings(ref, json && { ...json, image_processor_type: "BlipImageProcessor" }, imageSize, isChosen);
}
