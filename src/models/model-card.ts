// What is known of a checkpoint without its weights on a device.

import type { Dtype, ModelCard } from "../stages.ts";
import { type Checkpoint, expectTensors, readSettings } from "../weights/checkpoint.ts";
import { checkpointDigest, type DigestOptions } from "../weights/digest.ts";
import { CheckpointError } from "../weights/errors.ts";
import { blip2OptNames } from "../weights/names/blip-2-opt.ts";
import { type Blip2Config, blip2Config, blip2ImageSettings } from "./blip-2-config.ts";
import { UnsupportedModelError } from "./errors.ts";

/** A checkpoint that was checked whole: settings understood, every tensor there, of its shape and of a usable dtype. */
export interface CheckedModel {
  readonly card: ModelCard;
  readonly config: Blip2Config;
}

const supported = "blip-2 with OPT (Blip2ForConditionalGeneration)";

/**
 * Check a checkpoint and compute its card. Nothing is uploaded.
 * @throws UnsupportedModelError, ConfigError, CheckpointError, WeightsError
 */
export async function checkModel(
  checkpoint: Checkpoint,
  dtype: Dtype,
  options: DigestOptions = {},
): Promise<CheckedModel> {
  const { ref } = checkpoint;
  const json = await readSettings(checkpoint, "config.json");
  if (json === null) throw new CheckpointError(`${ref}: expected config.json, got no such file`);
  if (json.model_type !== "blip-2") {
    throw new UnsupportedModelError(
      `${ref}: expected a supported model type, got ${JSON.stringify(json.model_type)}; supported: ${supported}`,
    );
  }
  const config = blip2Config(ref, json);
  const { vision, queries, text } = config;
  const image = blip2ImageSettings(ref, await readSettings(checkpoint, "preprocessor_config.json"), vision.imageSize);
  if ((await readSettings(checkpoint, "tokenizer.json")) === null) {
    throw new CheckpointError(
      `${ref}: expected tokenizer.json, got no such file; save the model's fast tokenizer there`,
    );
  }
  if (dtype === "f16" && (vision.width % 2 === 1 || text.width % 2 === 1)) {
    throw new UnsupportedModelError(
      `${ref}: expected even hidden sizes under --dtype f16, got ${vision.width} and ${text.width}; use --dtype f32`,
    );
  }
  expectTensors(checkpoint, blip2OptNames(config));
  const tokens = Math.floor(vision.imageSize / vision.patchSize) ** 2 + 1;
  const card: ModelCard = {
    ref,
    family: "blip-2-opt",
    digest: await checkpointDigest(checkpoint, options),
    dtype,
    image,
    features: [tokens, vision.width],
    prompt: [queries, text.width],
    maxPositions: text.maxPositions,
  };
  return { card, config };
}

/** What `--dtype auto` means for a checkpoint: f32 when all of it is stored in f32. */
export function storedDtype(checkpoint: Checkpoint): Dtype {
  return [...checkpoint.tensors.values()].some(({ dtype }) => dtype === "F16" || dtype === "BF16") ? "f16" : "f32";
}
