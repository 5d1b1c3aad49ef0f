// What is known of a checkpoint without its weights on a device.

import type { CheckpointCard, Dtype, ModelCard, RetrievalCard } from "../stages.ts";
import { type Checkpoint, expectTensors, readSettings } from "../weights/checkpoint.ts";
import { checkpointDigest, type DigestOptions } from "../weights/digest.ts";
import { CheckpointError } from "../weights/errors.ts";
import { blip2OptNames } from "../weights/names/blip-2-opt.ts";
import { blip2RetrievalNames } from "../weights/names/blip-2-retrieval.ts";
import type { NameTable } from "../weights/names/tensor-names.ts";
import {
  type Blip2Config,
  type Blip2Head,
  type Blip2ImageConfig,
  type Blip2RetrievalConfig,
  blip2Config,
  blip2Head,
  blip2ImageSettings,
  blip2RetrievalConfig,
  expectBlip2Head,
} from "./blip-2-config.ts";
import { UnsupportedModelError } from "./errors.ts";

/** A checkpoint that was checked whole: settings understood, every tensor there, of its shape and of a usable dtype. */
export interface CheckedModel {
  readonly card: ModelCard;
  readonly config: Blip2Config;
}

/** The same of a model that compares images with texts. */
export interface CheckedRetrievalModel {
  readonly card: RetrievalCard;
  readonly config: Blip2RetrievalConfig;
}

const supported = "blip-2 with OPT (Blip2ForConditionalGeneration), blip-2 for retrieval (Blip2ForImageTextRetrieval)";

/**
 * Check a checkpoint that is to write texts, and compute its card. Nothing is uploaded.
 * @throws UnsupportedModelError, ConfigError, CheckpointError, WeightsError
 */
export async function checkModel(
  checkpoint: Checkpoint,
  dtype: Dtype,
  options: DigestOptions = {},
): Promise<CheckedModel> {
  const config = blip2Config(checkpoint.ref, await modelSettings(checkpoint));
  const { queries, text } = config;
  const widths = { "text_config.hidden_size": text.width };
  const shared = await checkParts(checkpoint, dtype, config, widths, blip2OptNames(config), options);
  const card = {
    ...shared,
    family: "blip-2-opt",
    prompt: [queries, text.width],
    maxPositions: text.maxPositions,
  } as const;
  return { card, config };
}

/**
 * Check a checkpoint that is to compare images with texts, and compute its card. Nothing is uploaded.
 * @throws UnsupportedModelError, ConfigError, CheckpointError, WeightsError
 */
export async function checkRetrievalModel(
  checkpoint: Checkpoint,
  dtype: Dtype,
  options: DigestOptions = {},
): Promise<CheckedRetrievalModel> {
  const config = blip2RetrievalConfig(checkpoint.ref, await modelSettings(checkpoint));
  const { queries, projectionWidth, text } = config;
  const widths = { image_text_hidden_size: projectionWidth };
  const shared = await checkParts(checkpoint, dtype, config, widths, blip2RetrievalNames(config), options);
  const vectors = [queries, projectionWidth] as const;
  return { card: { ...shared, family: "blip-2-retrieval", vectors, maxPositions: text.maxPositions }, config };
}

/** Which of the two a checkpoint is. @throws UnsupportedModelError, CheckpointError, ConfigError */
export async function modelHead(checkpoint: Checkpoint): Promise<Blip2Head> {
  return blip2Head(checkpoint.ref, await modelSettings(checkpoint));
}

/** Refuse a checkpoint of the other kind before anything else is done. @throws as modelHead */
export async function expectModelHead(checkpoint: Checkpoint, head: Blip2Head): Promise<void> {
  expectBlip2Head(checkpoint.ref, await modelSettings(checkpoint), head);
}

/** config.json of a model type that is built. */
async function modelSettings(checkpoint: Checkpoint): Promise<Record<string, unknown>> {
  const { ref } = checkpoint;
  const json = await readSettings(checkpoint, "config.json");
  if (json === null) throw new CheckpointError(`${ref}: expected config.json, got no such file`);
  if (json.model_type === "blip-2") return json;
  throw new UnsupportedModelError(
    `${ref}: expected a supported model type, got ${JSON.stringify(json.model_type)}; supported: ${supported}`,
  );
}

/** What all kinds must have beside their configuration. @param widths those that are stored as f16 at a hand-over */
async function checkParts(
  checkpoint: Checkpoint,
  dtype: Dtype,
  { vision }: Blip2ImageConfig,
  widths: Readonly<Record<string, number>>,
  names: NameTable,
  options: DigestOptions,
): Promise<Omit<CheckpointCard, "family">> {
  const { ref } = checkpoint;
  const image = blip2ImageSettings(ref, await readSettings(checkpoint, "preprocessor_config.json"), vision.imageSize);
  if ((await readSettings(checkpoint, "tokenizer.json")) === null) {
    throw new CheckpointError(
      `${ref}: expected tokenizer.json, got no such file; save the model's fast tokenizer there`,
    );
  }
  for (const [key, width] of Object.entries({ "vision_config.hidden_size": vision.width, ...widths })) {
    if (dtype !== "f16" || width % 2 === 0) continue;
    throw new UnsupportedModelError(
      `${ref}: ${key}: expected an even number under --dtype f16, got ${width}; use --dtype f32`,
    );
  }
  expectTensors(checkpoint, names);
  const tokens = Math.floor(vision.imageSize / vision.patchSize) ** 2 + 1;
  const digest = await checkpointDigest(checkpoint, options);
  return { ref, digest, dtype, image, features: [tokens, vision.width] };
}

/** What `--dtype auto` means for a checkpoint: f32 when all of it is stored in f32. */
export function storedDtype(checkpoint: Checkpoint): Dtype {
  return [...checkpoint.tensors.values()].some(({ dtype }) => dtype === "F16" || dtype === "BF16") ? "f16" : "f32";
}
