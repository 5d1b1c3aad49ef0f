// config.json of a BLIP checkpoint -> sizes, or one sentence why not.

import { z } from "zod";
import { classDefaults } from "./class-defaults.ts";
import { expectHeads, parse, settingCheck, type VisionConfig, visionConfig } from "./config-parts.ts";
import { UnsupportedModelError } from "./errors.ts";

/** Of the text encoder, the text decoder, or both: they have the same sizes. */
export interface BlipTextConfig {
  readonly vocabulary: number;
  readonly width: number;
  readonly mlpWidth: number;
  readonly layers: number;
  readonly heads: number;
  readonly maxPositions: number;
  /** Of every layer norm of the text half. */
  readonly normEps: number;
  /** Width of the rows that cross-attention makes keys and values of: the features'. */
  readonly memoryWidth: number;
  /** What a decoder's sequence starts with: [DEC]. */
  readonly startId: number;
  /** What ends it: [SEP]. `eos_token_id` is a leftover that transformers does not use either. */
  readonly stopIds: readonly number[];
  /** The decoder's head is its table of words. */
  readonly tied: boolean;
}

export interface BlipConfig {
  readonly vision: VisionConfig;
  readonly text: BlipTextConfig;
  /** Of the vectors by which images and texts are compared. */
  readonly projectionWidth: number;
}

const size = z.number().int().positive();
const id = z.number().int().nonnegative();
/** More than any checkpoint has; a number beyond it would cost its own length in memory before anything is checked. */
const layers = size.max(1000);
const eps = z.number().nonnegative();
const vision = classDefaults.BlipVisionConfig;
const text = classDefaults.BlipTextConfig;

const schema = z.object({
  image_text_hidden_size: size.default(classDefaults.BlipConfig.image_text_hidden_size),
  vision_config: z
    .object({
      hidden_size: size.default(vision.hidden_size),
      intermediate_size: size.default(vision.intermediate_size),
      num_hidden_layers: layers.default(vision.num_hidden_layers),
      num_attention_heads: size.default(vision.num_attention_heads),
      image_size: size.default(vision.image_size),
      patch_size: size.default(vision.patch_size),
      hidden_act: z.string().default(vision.hidden_act),
      layer_norm_eps: eps.default(vision.layer_norm_eps),
    })
    .nullish(),
  text_config: z
    .object({
      vocab_size: size.default(text.vocab_size),
      hidden_size: size.default(text.hidden_size),
      intermediate_size: size.default(text.intermediate_size),
      num_hidden_layers: layers.default(text.num_hidden_layers),
      // The published checkpoints have 12 heads, and say so; a file that says nothing means the class's 8.
      num_attention_heads: size.default(text.num_attention_heads),
      max_position_embeddings: size.default(text.max_position_embeddings),
      hidden_act: z.string().default(text.hidden_act),
      layer_norm_eps: eps.default(text.layer_norm_eps),
      position_embedding_type: z.string().default("absolute"),
      is_decoder: z.boolean().default(text.is_decoder),
      tie_word_embeddings: z.boolean().default(text.tie_word_embeddings),
      bos_token_id: id.default(text.bos_token_id),
      sep_token_id: id.default(text.sep_token_id),
    })
    .nullish(),
});

/**
 * @param ref names the checkpoint in errors
 * @throws ConfigError for a malformed file, UnsupportedModelError for a variant that is not built
 */
export function blipConfig(ref: string, json: Record<string, unknown>): BlipConfig {
  const read = parse(ref, "config.json", schema, json);
  const seen = schema.shape.vision_config
    .unwrap()
    .unwrap()
    .parse(read.vision_config ?? {});
  const written = schema.shape.text_config
    .unwrap()
    .unwrap()
    .parse(read.text_config ?? {});
  const expect = settingCheck(ref);
  expect("text_config.hidden_act", "gelu", written.hidden_act);
  expect("text_config.position_embedding_type", "absolute", written.position_embedding_type);
  expect("text_config.is_decoder", true, written.is_decoder);
  expectHeads(ref, "text_config", written);
  return {
    vision: visionConfig(ref, seen, true),
    text: {
      vocabulary: written.vocab_size,
      width: written.hidden_size,
      mlpWidth: written.intermediate_size,
      layers: written.num_hidden_layers,
      heads: written.num_attention_heads,
      maxPositions: written.max_position_embeddings,
      normEps: written.layer_norm_eps,
      // BlipConfig overwrites what text_config.encoder_hidden_size says.
      memoryWidth: seen.hidden_size,
      startId: written.bos_token_id,
      stopIds: [written.sep_token_id],
      tied: written.tie_word_embeddings,
    },
    projectionWidth: read.image_text_hidden_size,
  };
}

/**
 * The same of a model that answers questions, whose decoder attends to rows as wide as the text's.
 * @throws as blipConfig
 */
export function blipVqaConfig(ref: string, json: Record<string, unknown>): BlipConfig {
  const config = blipConfig(ref, json);
  const { vision, text } = config;
  if (vision.width === text.width) return config;
  throw new UnsupportedModelError(
    `${ref}: text_config.hidden_size: expected ${vision.width} as vision_config.hidden_size says, because question and image ` +
      `are attended to with weights of one width, got ${text.width}`,
  );
}
