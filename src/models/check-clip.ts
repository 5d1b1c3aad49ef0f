// CLIP: a checkpoint, checked.

import type { Dtype, LabelCard } from "../stages.ts";
import { type Checkpoint, readSettings } from "../weights/checkpoint.ts";
import { WeightsError } from "../weights/errors.ts";
import {
  clipImageHeadNames,
  clipLogitScale,
  clipNames,
  clipTextNames,
  clipVisionNames,
} from "../weights/names/clip.ts";
import { readScalar } from "../weights/safetensors.ts";
import { type CheckedModel, checkCheckpoint, checkedModel } from "./checked-model.ts";
import { clipPrograms } from "./clip.ts";
import { clipConfig, clipImageSettings } from "./clip-config.ts";
import type { ContrastPrograms } from "./contrast.ts";
import { type CheckOptions, isResized, withSettings } from "./run-settings.ts";

/** CLIPModel. @param json config.json. @throws as checkModel */
export async function checkClip(
  checkpoint: Checkpoint,
  json: Record<string, unknown>,
  dtype: Dtype,
  options: CheckOptions,
): Promise<CheckedModel<LabelCard, ContrastPrograms>> {
  const { ref } = checkpoint;
  const written = clipConfig(ref, json);
  const config = withSettings(ref, written, null, options.settings);
  const { vision, text, projectionWidth } = config;
  const processor = await readSettings(checkpoint, "preprocessor_config.json");
  const facts = {
    vision,
    written: written.vision,
    image: clipImageSettings(ref, processor, vision.imageSize, isResized(vision, options.settings)),
    widths: { projection_dim: projectionWidth },
    names: clipNames(config),
  };
  const card: LabelCard = {
    ...(await checkCheckpoint(checkpoint, dtype, facts, options)),
    family: "clip",
    vectors: [1, projectionWidth],
    maxPositions: text.maxPositions,
    logitScale: await logitScale(checkpoint),
  };
  const parts = {
    encode: { vision: clipVisionNames(config) },
    query: { imageHead: clipImageHeadNames(config), text: clipTextNames(config) },
  };
  return checkedModel(card, parts, (gpu, weights) => clipPrograms(gpu, weights, config, card));
}

/** What is stored is a logarithm. */
async function logitScale(checkpoint: Checkpoint): Promise<number> {
  const { name } = clipLogitScale;
  const stored = checkpoint.tensors.get(name);
  if (stored === undefined) throw new WeightsError(checkpoint.ref, [`${name}: expected it, got no such tensor`]);
  return Math.exp(await readScalar(stored));
}
