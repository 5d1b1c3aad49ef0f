// What the settings of several families share: how a file is read and refused, and the ViT of BLIP and BLIP-2.

import type { z } from "zod";
import { ConfigError } from "../weights/errors.ts";
import { UnsupportedModelError } from "./errors.ts";

export interface VisionConfig {
  readonly width: number;
  readonly mlpWidth: number;
  readonly layers: number;
  readonly heads: number;
  /** Of this run. */
  readonly imageSize: number;
  /** What the positions were trained with. */
  readonly trainedSize: number;
  readonly patchSize: number;
  /** Of the layer norms in the blocks of the ViT. */
  readonly normEps: number;
  /** Of the one behind them. */
  readonly lastNormEps: number;
  readonly qkvBias: boolean;
}

/** vision_config with its defaults filled in. */
interface VisionSettings {
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly image_size: number;
  readonly patch_size: number;
  readonly layer_norm_eps: number;
  readonly hidden_act: string;
}

/** @throws UnsupportedModelError for another activation, or heads that do not divide the width */
export function visionConfig(ref: string, seen: VisionSettings, qkvBias: boolean): VisionConfig {
  settingCheck(ref)("vision_config.hidden_act", "gelu", seen.hidden_act);
  expectHeads(ref, "vision_config", seen);
  return {
    width: seen.hidden_size,
    mlpWidth: seen.intermediate_size,
    layers: seen.num_hidden_layers,
    heads: seen.num_attention_heads,
    imageSize: seen.image_size,
    trainedSize: seen.image_size,
    patchSize: seen.patch_size,
    normEps: seen.layer_norm_eps,
    lastNormEps: seen.layer_norm_eps,
    qkvBias,
  };
}

/** A check of one setting of config.json. @returns it; it throws UnsupportedModelError where a setting is another */
export function settingCheck(ref: string): (key: string, expected: unknown, got: unknown) => void {
  return (key, expected, got) => {
    if (got !== expected) throw new UnsupportedModelError(`${ref}: ${key}: expected ${expected}, got ${got}`);
  };
}

/** @throws UnsupportedModelError when the heads do not divide the width of a part of config.json */
export function expectHeads(
  ref: string,
  part: string,
  sizes: { hidden_size: number; num_attention_heads: number },
): void {
  if (sizes.hidden_size % sizes.num_attention_heads === 0) return;
  throw new UnsupportedModelError(
    `${ref}: ${part}.num_attention_heads: expected a divisor of the hidden size ${sizes.hidden_size}, got ${sizes.num_attention_heads}`,
  );
}

/** A settings file as a schema reads it. @throws ConfigError naming every key that is wrong */
export function parse<T>(ref: string, file: string, schema: z.ZodType<T>, json: unknown): T {
  const read = schema.safeParse(json);
  if (read.success) return read.data;
  const problems = read.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
  throw new ConfigError(`${ref}: expected ${file} to be usable, got ${problems.join("; ")}`);
}
