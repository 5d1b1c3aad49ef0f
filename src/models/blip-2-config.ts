// config.json and preprocessor_config.json of a BLIP-2 checkpoint -> sizes and settings, or one sentence why not.

import { z } from "zod";
import type { ImageSettings } from "../stages.ts";
import { ConfigError } from "../weights/errors.ts";
import { classDefaults } from "./class-defaults.ts";
import { type ClipVisionConfig, clipVisionConfig } from "./clip-config.ts";
import { expectHeads, parse, settingCheck, type VisionConfig, visionConfig } from "./config-parts.ts";
import { UnsupportedModelError } from "./errors.ts";
import { type OptConfig, optConfig } from "./opt-config.ts";
import { type T5Config, t5Config } from "./t5-config.ts";

export interface QFormerConfig {
  readonly width: number;
  readonly mlpWidth: number;
  readonly layers: number;
  readonly heads: number;
  /** Width of the features it attends to. */
  readonly imageWidth: number;
  /** Layers 0, n, 2n, … attend to the image. */
  readonly crossAttentionFrequency: number;
  readonly normEps: number;
}

/** What every kind of BLIP-2 has. */
export interface Blip2ImageConfig {
  /** EVA's ViT-g, or CLIP's ViT-L, whose vision_config has CLIP's model_type. */
  readonly vision: VisionConfig | ClipVisionConfig;
  readonly qFormer: QFormerConfig;
  /** Query tokens, and so image slots of a language model. */
  readonly queries: number;
}

/** Blip2ForConditionalGeneration */
export interface Blip2Config<Text = OptConfig> extends Blip2ImageConfig {
  /** The id that stands for an image slot. */
  readonly imageId: number;
  readonly text: Text;
}

/** Blip2ForImageTextRetrieval: the Q-Former reads the text itself. */
export interface Blip2RetrievalConfig extends Blip2ImageConfig {
  readonly text: { readonly vocabulary: number; readonly maxPositions: number };
  /** Of the vectors by which images and texts are compared. */
  readonly projectionWidth: number;
}

const size = z.number().int().positive();
/** More than any checkpoint has; a number beyond it would cost its own length in memory before anything is checked. */
const layers = size.max(1000);
const eps = z.number().nonnegative();
const visionDefaults = classDefaults.Blip2VisionConfig;
const qFormerDefaults = classDefaults.Blip2QFormerConfig;

const blip2Schema = z.object({
  num_query_tokens: size.default(classDefaults.Blip2Config.num_query_tokens),
  image_text_hidden_size: size.default(classDefaults.Blip2Config.image_text_hidden_size),
  image_token_index: z.number().int().nonnegative().nullable().default(classDefaults.Blip2Config.image_token_index),
  vision_config: z
    .object({
      model_type: z.string().optional(),
      hidden_size: size.default(visionDefaults.hidden_size),
      intermediate_size: size.default(visionDefaults.intermediate_size),
      num_hidden_layers: layers.default(visionDefaults.num_hidden_layers),
      num_attention_heads: size.default(visionDefaults.num_attention_heads),
      image_size: size.default(visionDefaults.image_size),
      patch_size: size.default(visionDefaults.patch_size),
      hidden_act: z.string().default(visionDefaults.hidden_act),
      layer_norm_eps: eps.default(visionDefaults.layer_norm_eps),
      qkv_bias: z.boolean().default(visionDefaults.qkv_bias),
    })
    .nullish(),
  qformer_config: z
    .object({
      hidden_size: size.default(qFormerDefaults.hidden_size),
      num_hidden_layers: layers.default(qFormerDefaults.num_hidden_layers),
      num_attention_heads: size.default(qFormerDefaults.num_attention_heads),
      intermediate_size: size.default(qFormerDefaults.intermediate_size),
      hidden_act: z.string().default(qFormerDefaults.hidden_act),
      layer_norm_eps: eps.default(qFormerDefaults.layer_norm_eps),
      position_embedding_type: z.string().default(qFormerDefaults.position_embedding_type),
      cross_attention_frequency: size.default(qFormerDefaults.cross_attention_frequency),
      vocab_size: size.default(qFormerDefaults.vocab_size),
      max_position_embeddings: size.default(qFormerDefaults.max_position_embeddings),
      use_qformer_text_input: z.boolean().default(qFormerDefaults.use_qformer_text_input),
    })
    .nullish(),
  text_config: z.looseObject({ model_type: z.string().default("opt") }).nullish(),
});

/**
 * With OPT.
 * @param ref names the checkpoint in errors
 * @throws ConfigError for a malformed file, UnsupportedModelError for a kind of BLIP-2 that is not built
 */
export function blip2Config(ref: string, json: Record<string, unknown>): Blip2Config {
  return writingConfig(ref, json, "opt", optConfig);
}

/** The same with T5. */
export function blip2T5Config(ref: string, json: Record<string, unknown>): Blip2Config<T5Config> {
  return writingConfig(ref, json, "t5", t5Config);
}

function writingConfig<Text>(
  ref: string,
  json: Record<string, unknown>,
  textModel: string,
  textConfig: (text: Readonly<Record<string, unknown>>, ref: string) => Text,
): Blip2Config<Text> {
  const { read, vision, qFormer, queries } = imageConfig(ref, json, { readsText: false });
  const text = { model_type: "opt", ...read.text_config };
  if (text.model_type !== textModel) {
    throw new UnsupportedModelError(
      `${ref}: expected BLIP-2 with the language model ${textModel}, got ${text.model_type}`,
    );
  }
  return { vision, qFormer, queries, imageId: imageIdOf(ref, read), text: textConfig(text, ref) };
}

/** The id that stands for an image slot. @throws UnsupportedModelError where a file has none */
export function imageIdOf(ref: string, { image_token_index }: { readonly image_token_index: number | null }): number {
  if (image_token_index !== null) return image_token_index;
  throw new UnsupportedModelError(
    `${ref}: config.json image_token_index: expected the id of <image>, got none; transformers 4.57.6 cannot generate with ` +
      "such a file either: take a newer revision of the checkpoint",
  );
}

/**
 * @param ref names the checkpoint in errors
 * @throws ConfigError for a malformed file, UnsupportedModelError for one that is not built
 */
export function blip2RetrievalConfig(ref: string, json: Record<string, unknown>): Blip2RetrievalConfig {
  const { read, asked, vision, qFormer, queries } = imageConfig(ref, json, { readsText: true });
  return {
    vision,
    qFormer,
    queries,
    text: { vocabulary: asked.vocab_size, maxPositions: asked.max_position_embeddings },
    projectionWidth: read.image_text_hidden_size,
  };
}

/**
 * The parts of a configuration that all kinds share, InstructBLIP included, checked, and the file as it was read.
 * @param readsText what the file must say of the Q-Former; null: nothing
 */
export function imageConfig(
  ref: string,
  json: Record<string, unknown>,
  { readsText }: { readonly readsText: boolean | null },
) {
  // "image_token_id" is the same attribute under a second name.
  const named = { ...json, image_token_index: json.image_token_index ?? json.image_token_id ?? null };
  const read = parse(ref, "config.json", blip2Schema, named);
  const seen = blip2Schema.shape.vision_config
    .unwrap()
    .unwrap()
    .parse(read.vision_config ?? {});
  const asked = blip2Schema.shape.qformer_config
    .unwrap()
    .unwrap()
    .parse(read.qformer_config ?? {});
  const { model_type: visionModel } = (read.vision_config ?? {}) as { model_type?: unknown };
  const isClip = visionModel === "clip_vision_model";
  const expect = settingCheck(ref);
  expect("qformer_config.hidden_act", "gelu", asked.hidden_act);
  expect("qformer_config.position_embedding_type", "absolute", asked.position_embedding_type);
  if (readsText !== null) expect("qformer_config.use_qformer_text_input", readsText, asked.use_qformer_text_input);
  expectHeads(ref, "qformer_config", asked);
  return {
    read,
    asked,
    vision: isClip ? clipVisionConfig(ref, json.vision_config) : visionConfig(ref, seen, seen.qkv_bias),
    qFormer: {
      width: asked.hidden_size,
      mlpWidth: asked.intermediate_size,
      layers: asked.num_hidden_layers,
      heads: asked.num_attention_heads,
      // Blip2Config overwrites what qformer_config says.
      imageWidth: seen.hidden_size,
      crossAttentionFrequency: asked.cross_attention_frequency,
      normEps: asked.layer_norm_eps,
    },
    queries: read.num_query_tokens,
  };
}

const processor = classDefaults.BlipImageProcessor;
/** Pixels are divided by it. */
const deviation = z.number().positive();
const three = z.tuple([z.number(), z.number(), z.number()]);

const processorSchema = z.object({
  image_processor_type: z.string().optional(),
  do_resize: z.boolean().default(processor.do_resize),
  size: z
    .union([size.transform((side) => ({ height: side, width: side })), z.object({ height: size, width: size })])
    .default(processor.size),
  resample: z.number().default(processor.resample),
  do_rescale: z.boolean().default(processor.do_rescale),
  rescale_factor: z.number().default(processor.rescale_factor),
  do_normalize: z.boolean().default(processor.do_normalize),
  image_mean: three.default([...processor.image_mean]),
  image_std: z.tuple([deviation, deviation, deviation]).default([...processor.image_std]),
});

/** PIL's number for BICUBIC. */
const bicubic = 3;

/**
 * @param json preprocessor_config.json; null when the checkpoint has none
 * @param imageSize what the ViT gets in this run
 * @param isChosen the file need not say that size
 * @throws ConfigError for a missing or malformed file, UnsupportedModelError for preprocessing that is not built
 */
export function blip2ImageSettings(
  ref: string,
  json: Record<string, unknown> | null,
  imageSize: number,
  isChosen = false,
): ImageSettings {
  if (json === null) {
    throw new ConfigError(`${ref}: expected preprocessor_config.json, got no such file; save the processor there`);
  }
  const read = parse(ref, "preprocessor_config.json", processorSchema, json);
  const expect = (key: string, expected: string, holds: boolean, got: unknown) => {
    if (holds) return;
    throw new UnsupportedModelError(`${ref}: preprocessor_config.json ${key}: expected ${expected}, got ${got}`);
  };
  const type = read.image_processor_type ?? "BlipImageProcessor";
  expect("image_processor_type", "BlipImageProcessor", /^BlipImageProcessor(Fast)?$/.test(type), type);
  expect("do_resize", "true", read.do_resize, read.do_resize);
  expect("do_rescale", "true", read.do_rescale, read.do_rescale);
  expect("do_normalize", "true", read.do_normalize, read.do_normalize);
  expect("resample", `${bicubic} (bicubic)`, read.resample === bicubic, read.resample);
  const { height, width } = read.size;
  const fits = isChosen || (height === imageSize && width === imageSize);
  const wanted = `${imageSize} x ${imageSize} as vision_config.image_size says (or a size that is chosen with --image-size)`;
  expect("size", wanted, fits, `${height} x ${width}`);
  return {
    height: imageSize,
    width: imageSize,
    resample: "bicubic",
    rescale: read.rescale_factor,
    mean: read.image_mean,
    std: read.image_std,
  };
}
