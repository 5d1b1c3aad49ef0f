// config.json and preprocessor_config.json of a CLIP checkpoint -> sizes and settings, or one sentence why not.

import { z } from "zod";
import type { Activation } from "../kernels/matmul.ts";
import type { ImageSettings } from "../stages.ts";
import { ConfigError } from "../weights/errors.ts";
import { classDefaults } from "./class-defaults.ts";
import { expectHeads, parse } from "./config-parts.ts";
import { UnsupportedModelError } from "./errors.ts";

/** What both encoders have. */
export interface ClipEncoderConfig {
  readonly width: number;
  readonly mlpWidth: number;
  readonly layers: number;
  readonly heads: number;
  readonly activation: Activation;
  /** Of every layer norm of the encoder. */
  readonly normEps: number;
}

export interface ClipVisionConfig extends ClipEncoderConfig {
  /** Of this run. */
  readonly imageSize: number;
  /** What the positions were trained with. */
  readonly trainedSize: number;
  readonly patchSize: number;
  /** Of the norm behind the blocks. */
  readonly lastNormEps: number;
}

export interface ClipTextConfig extends ClipEncoderConfig {
  readonly vocabulary: number;
  readonly maxPositions: number;
  /** What `eos_token_id` says; see endToken for what 2 means. */
  readonly eosId: number;
}

export interface ClipConfig {
  readonly vision: ClipVisionConfig;
  readonly text: ClipTextConfig;
  /** Of the vectors by which images and texts are compared. */
  readonly projectionWidth: number;
}

const size = z.number().int().positive();
/** More than any checkpoint has; a number beyond it would cost its own length in memory before anything is checked. */
const layers = size.max(1000);
const eps = z.number().nonnegative();

/** The keys that both encoders have, with the defaults of one. */
function encoderKeys(defaults: typeof classDefaults.CLIPVisionConfig | typeof classDefaults.CLIPTextConfig) {
  return {
    hidden_size: size.default(defaults.hidden_size),
    intermediate_size: size.default(defaults.intermediate_size),
    num_hidden_layers: layers.default(defaults.num_hidden_layers),
    num_attention_heads: size.default(defaults.num_attention_heads),
    hidden_act: z.string().default(defaults.hidden_act),
    layer_norm_eps: eps.default(defaults.layer_norm_eps),
  };
}

const visionSchema = z.object({
  ...encoderKeys(classDefaults.CLIPVisionConfig),
  image_size: size.default(classDefaults.CLIPVisionConfig.image_size),
  patch_size: size.default(classDefaults.CLIPVisionConfig.patch_size),
  num_channels: z
    .literal(classDefaults.CLIPVisionConfig.num_channels)
    .default(classDefaults.CLIPVisionConfig.num_channels),
});

const textSchema = z.object({
  ...encoderKeys(classDefaults.CLIPTextConfig),
  vocab_size: size.default(classDefaults.CLIPTextConfig.vocab_size),
  max_position_embeddings: size.default(classDefaults.CLIPTextConfig.max_position_embeddings),
  eos_token_id: z.number().int().nonnegative().default(classDefaults.CLIPTextConfig.eos_token_id),
});

const part = z.record(z.string(), z.unknown()).nullish();
const schema = z.object({
  projection_dim: size.default(classDefaults.CLIPConfig.projection_dim),
  vision_config: part,
  text_config: part,
  vision_config_dict: part,
  text_config_dict: part,
});

/**
 * @param ref names the checkpoint in errors
 * @throws ConfigError for a malformed file, UnsupportedModelError for a kind of CLIP that is not built
 */
export function clipConfig(ref: string, json: Record<string, unknown>): ClipConfig {
  const read = parse(ref, "config.json", schema, json);
  // Older files have a second record. As in transformers it wins, and with its defaults where it says nothing.
  const whole = z.object({ vision_config: visionSchema, text_config: textSchema });
  const { vision_config: vision, text_config: text } = parse(ref, "config.json", whole, {
    vision_config: read.vision_config_dict ?? read.vision_config ?? {},
    text_config: read.text_config_dict ?? read.text_config ?? {},
  });
  return {
    vision: visionConfigOf(ref, vision),
    text: {
      ...encoderConfig(ref, "text_config", text),
      vocabulary: text.vocab_size,
      maxPositions: text.max_position_embeddings,
      eosId: text.eos_token_id,
    },
    projectionWidth: read.projection_dim,
  };
}

/** The ViT alone, as a part of another model. @param json vision_config. @throws as clipConfig */
export function clipVisionConfig(ref: string, json: unknown): ClipVisionConfig {
  return visionConfigOf(
    ref,
    parse(ref, "config.json", z.object({ vision_config: visionSchema }), { vision_config: json }).vision_config,
  );
}

function visionConfigOf(ref: string, vision: z.infer<typeof visionSchema>): ClipVisionConfig {
  return {
    ...encoderConfig(ref, "vision_config", vision),
    imageSize: vision.image_size,
    trainedSize: vision.image_size,
    patchSize: vision.patch_size,
    lastNormEps: vision.layer_norm_eps,
  };
}

const activations: Readonly<Record<string, Activation>> = { quick_gelu: "quick gelu", gelu: "gelu" };

function encoderConfig(
  ref: string,
  key: string,
  read: z.infer<z.ZodObject<ReturnType<typeof encoderKeys>>>,
): ClipEncoderConfig {
  const activation = activations[read.hidden_act];
  if (activation === undefined) {
    throw new UnsupportedModelError(
      `${ref}: ${key}.hidden_act: expected ${Object.keys(activations).join(" or ")}, got ${read.hidden_act}`,
    );
  }
  expectHeads(ref, key, read);
  return {
    width: read.hidden_size,
    mlpWidth: read.intermediate_size,
    layers: read.num_hidden_layers,
    heads: read.num_attention_heads,
    activation,
    normEps: read.layer_norm_eps,
  };
}

/** What `eos_token_id` is in files that were written before transformers asked for it. */
const legacyEos = 2;

/**
 * The place of the token that a text's vector is made from: the first end token. Files of the older kind do not know its
 * id, and there it is the first of the largest ids. A text without one, which the tokenizer never makes, is 0's.
 */
export function endToken({ eosId }: Pick<ClipTextConfig, "eosId">, ids: readonly number[]): number {
  const wanted = eosId === legacyEos ? ids.reduce((most, id) => Math.max(most, id), 0) : eosId;
  return Math.max(0, ids.indexOf(wanted));
}

const processor = classDefaults.CLIPImageProcessor;
const three = z.tuple([z.number(), z.number(), z.number()]);
/** Pixels are divided by it. */
const deviation = z.number().positive();
const square = size.transform((side) => ({ height: side, width: side }));

const processorSchema = z.object({
  image_processor_type: z.string().optional(),
  feature_extractor_type: z.string().optional(),
  do_resize: z.boolean().default(processor.do_resize),
  size: z
    .union([
      size.transform((side) => ({ shortest_edge: side })),
      z.object({ shortest_edge: size }),
      z.object({ height: size, width: size }),
    ])
    .default(processor.size),
  resample: z.number().default(processor.resample),
  do_center_crop: z.boolean().default(processor.do_center_crop),
  crop_size: z.union([square, z.object({ height: size, width: size })]).default(processor.crop_size),
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
 * @param isChosen the file need not say that size: the shorter side is resized to it, and a square of it cut out
 * @throws ConfigError for a missing or malformed file, UnsupportedModelError for preprocessing that is not built
 */
export function clipImageSettings(
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
  const type = read.image_processor_type ?? read.feature_extractor_type ?? "CLIPImageProcessor";
  const isClip = /^CLIP(ImageProcessor(Fast)?|FeatureExtractor)$/.test(type);
  expect("image_processor_type", "CLIPImageProcessor", isClip, type);
  for (const key of ["do_resize", "do_center_crop", "do_rescale", "do_normalize"] as const) {
    expect(key, "true", read[key], read[key]);
  }
  expect("resample", `${bicubic} (bicubic)`, read.resample === bicubic, read.resample);
  const { height, width } = read.crop_size;
  const says = height === imageSize && width === imageSize;
  const fits = isChosen || says;
  expect("crop_size", `${imageSize} x ${imageSize} as vision_config.image_size says`, fits, `${height} x ${width}`);
  const shortest = "shortest_edge" in read.size ? read.size.shortest_edge : null;
  const reaches = shortest !== null && shortest >= imageSize;
  const covers = reaches || (shortest !== null && isChosen);
  expect("size", `a shortest_edge of at least ${imageSize}`, covers, JSON.stringify(read.size));
  return {
    height: imageSize,
    width: imageSize,
    // A choice of what the file says changes nothing.
    shortestEdge: says && reaches ? shortest : imageSize,
    resample: "bicubic",
    rescale: read.rescale_factor,
    mean: read.image_mean,
    std: read.image_std,
  };
}
