// config.json of a VisualGLM checkpoint -> sizes and settings, or one sentence why not. Upstream: THUDM/VisualGLM-6B, whose
// configuration class is in the repository and not in transformers, so that no key has a default here.

import { z } from "zod";
import type { ImageSettings } from "../stages.ts";
import { type Blip2ImageConfig, blip2ImageSettings } from "./blip-2-config.ts";
import { classDefaults } from "./class-defaults.ts";
import { expectHeads, parse, settingCheck } from "./config-parts.ts";
import { UnsupportedModelError } from "./errors.ts";

export interface GlmConfig {
  readonly vocabulary: number;
  readonly width: number;
  readonly mlpWidth: number;
  readonly layers: number;
  readonly heads: number;
  readonly maxPositions: number;
  /** Of every layer norm. */
  readonly normEps: number;
  /** Ids that end a sequence. */
  readonly stopIds: readonly number[];
}

export interface VisualGlmConfig extends Blip2ImageConfig {
  readonly text: GlmConfig;
  /** What the tokenizer must call [gMASK] and <sop>. */
  readonly ids: { readonly mask: number; readonly start: number };
}

const size = z.number().int().positive();
/** More than any checkpoint has; a number beyond it would cost its own length in memory before anything is checked. */
const layers = size.max(1000);
const eps = z.number().nonnegative();
const id = z.number().int().nonnegative();

const schema = z.object({
  vocab_size: size,
  hidden_size: size,
  inner_hidden_size: size,
  num_layers: layers,
  num_attention_heads: size,
  max_sequence_length: size,
  layernorm_epsilon: eps,
  position_encoding_2d: z.boolean().default(true),
  bos_token_id: id,
  eos_token_id: id,
  gmask_token_id: id,
  image_length: size,
  eva_config: z.object({
    hidden_size: size,
    inner_hidden_size: size,
    num_layers: layers,
    num_attention_heads: size,
    layernorm_epsilon: eps,
    layernorm_order: z.string().default("pre"),
    use_final_layernorm: z.boolean().default(false),
    image_size: z.union([size, z.tuple([size, size])]),
    patch_size: size,
  }),
  qformer_config: z.object({
    hidden_size: size,
    inner_hidden_size: size,
    num_layers: layers,
    num_attention_heads: size,
    vocab_size: size,
    cross_attn_hidden_size: size,
    layernorm_epsilon: eps,
    layernorm_order: z.string().default("post"),
    /** Layer by layer, or of all: whether it reads the image. Left out: every second one does. */
    is_decoder: z.union([z.boolean(), z.array(z.boolean())]).optional(),
  }),
});

/** Of the norm behind the ViT, which has PyTorch's default in SAT's source and no key. */
const lastNormEps = 1e-5;
/** Layers of the Q-Former that read the image where the file does not say. */
const everySecond = 2;

/**
 * @param ref names the checkpoint in errors
 * @throws ConfigError for a malformed file, UnsupportedModelError for a model of this type without an image encoder, and for
 * settings that are not built
 */
export function visualGlmConfig(ref: string, json: Record<string, unknown>): VisualGlmConfig {
  if (json.eva_config === undefined || json.qformer_config === undefined) {
    throw new UnsupportedModelError(
      `${ref}: expected VisualGLM, whose config.json has eva_config and qformer_config, got a ${json.model_type} without them, ` +
        "which reads no images",
    );
  }
  const read = parse(ref, "config.json", schema, json);
  const { eva_config: vit, qformer_config: qFormer } = read;
  const expect = settingCheck(ref);
  expect("position_encoding_2d", true, read.position_encoding_2d);
  expect("eva_config.layernorm_order", "pre", vit.layernorm_order);
  expect("eva_config.use_final_layernorm", false, vit.use_final_layernorm);
  expect("qformer_config.layernorm_order", "post", qFormer.layernorm_order);
  expect("qformer_config.vocab_size", read.image_length, qFormer.vocab_size);
  expect("qformer_config.cross_attn_hidden_size", vit.hidden_size, qFormer.cross_attn_hidden_size);
  expectHeads(ref, "eva_config", vit);
  expectHeads(ref, "qformer_config", qFormer);
  const { hidden_size: width, num_attention_heads: heads } = read;
  const imageSize = imageSide(ref, vit.image_size);
  // Each half of a head is turned in pairs.
  if (width % (4 * heads) !== 0) {
    throw new UnsupportedModelError(
      `${ref}: num_attention_heads: expected heads of a multiple of 4 values in a hidden size of ${width}, got ${heads}`,
    );
  }
  return {
    vision: {
      width: vit.hidden_size,
      mlpWidth: vit.inner_hidden_size,
      layers: vit.num_layers,
      heads: vit.num_attention_heads,
      imageSize,
      trainedSize: imageSize,
      patchSize: vit.patch_size,
      normEps: vit.layernorm_epsilon,
      lastNormEps,
      qkvBias: true,
    },
    qFormer: {
      width: qFormer.hidden_size,
      mlpWidth: qFormer.inner_hidden_size,
      layers: qFormer.num_layers,
      heads: qFormer.num_attention_heads,
      imageWidth: vit.hidden_size,
      crossAttentionFrequency: crossAttentionFrequency(ref, qFormer),
      normEps: qFormer.layernorm_epsilon,
    },
    queries: read.image_length,
    text: {
      vocabulary: read.vocab_size,
      width,
      mlpWidth: read.inner_hidden_size,
      layers: read.num_layers,
      heads,
      maxPositions: read.max_sequence_length,
      normEps: read.layernorm_epsilon,
      stopIds: [read.eos_token_id],
    },
    ids: { mask: read.gmask_token_id, start: read.bos_token_id },
  };
}

function imageSide(ref: string, given: number | readonly [number, number]): number {
  const [height, width] = typeof given === "number" ? [given, given] : given;
  if (height === width) return height;
  throw new UnsupportedModelError(`${ref}: eva_config.image_size: expected a square, got ${height} x ${width}`);
}

/** @throws UnsupportedModelError where the layers that read the image are not every n-th, the first included */
function crossAttentionFrequency(
  ref: string,
  { is_decoder: reads, num_layers: count }: { is_decoder?: boolean | boolean[] | undefined; num_layers: number },
): number {
  if (reads === undefined) return everySecond;
  const each = typeof reads === "boolean" ? new Array<boolean>(count).fill(reads) : reads;
  const second = each.indexOf(true, 1);
  const frequency = second < 0 ? count : second;
  if (each.length === count && each.every((does, i) => does === (i % frequency === 0))) return frequency;
  throw new UnsupportedModelError(
    `${ref}: qformer_config.is_decoder: expected true for every n-th of ${count} layers, the first included, got ${JSON.stringify(reads)}`,
  );
}

/**
 * The published repository has no preprocessor_config.json: its code resizes to the ViT's square and normalises as BLIP does.
 * @param json that file, where there is one
 * @param isChosen as of blip2ImageSettings
 * @throws as blip2ImageSettings
 */
export function visualGlmImageSettings(
  ref: string,
  json: Record<string, unknown> | null,
  imageSize: number,
  isChosen = false,
): ImageSettings {
  const { image_mean, image_std } = classDefaults.BlipImageProcessor;
  const asPublished = { size: { height: imageSize, width: imageSize }, image_mean, image_std };
  return blip2ImageSettings(ref, json ?? asPublished, imageSize, isChosen);
}
