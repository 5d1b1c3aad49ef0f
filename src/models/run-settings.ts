// How a checkpoint is run where that is a choice: the size of its images, and whose code is followed. What is chosen is checked
// here against the checkpoint.

import type { CheckpointCard, RunSettings } from "../stages.ts";
import { type Checkpoint, readSettings } from "../weights/checkpoint.ts";
import type { DigestOptions } from "../weights/digest.ts";
import { UnsupportedModelError } from "./errors.ts";

/** What a check of a checkpoint may be told. */
export interface CheckOptions extends DigestOptions {
  /** The checkpoint's digest, where it is known, or is filled in later by who loads. Default: it is computed. */
  readonly digest?: string;
  /** Default: as the checkpoint is. */
  readonly settings?: RunSettings;
}

/** What settings change of a ViT. */
export interface ChangingVision {
  /** Of this run. */
  readonly imageSize: number;
  /** What the positions were trained with. */
  readonly trainedSize: number;
  readonly patchSize: number;
  readonly normEps: number;
  readonly lastNormEps: number;
}

/** How LAVIS has it whatever a configuration says. */
export interface LavisVision {
  /** Epsilon of the norms in the blocks, and of the last one. */
  readonly normEps: number;
  readonly lastNormEps: number;
  /** The size of images where the checkpoint was cut down to another, by that one. */
  readonly imageSizes?: Readonly<Record<number, number>>;
}

/** lavis/models/vit.py: `partial(nn.LayerNorm, eps=1e-6)` for all of them. */
export const lavisBlip: LavisVision = { normEps: 1e-6, lastNormEps: 1e-6 };
/** The same; questions were trained and evaluated at 480 pixels, transformers' files have positions of 384. */
export const lavisBlipVqa: LavisVision = { ...lavisBlip, imageSizes: { 384: 480 } };
/** lavis/models/eva_vit.py, and `ln_vision` in blip2_models/blip2.py, which takes PyTorch's default. */
export const lavisBlip2: LavisVision = { normEps: 1e-6, lastNormEps: 1e-5 };
/** With CLIP's ViT-L, lavis/models/clip_vit.py: PyTorch's default throughout. */
export const lavisBlip2Clip: LavisVision = { normEps: 1e-5, lastNormEps: 1e-5 };

/**
 * A configuration with what this run makes of its ViT.
 * @param ref names the checkpoint in errors
 * @param lavis null for a family that LAVIS runs no other way
 * @throws UnsupportedModelError for a size of images that is no multiple of the patch, and for a behaviour that is none
 */
export function withSettings<C extends { readonly vision: ChangingVision }>(
  ref: string,
  config: C,
  lavis: LavisVision | null,
  { imageSize, behaviour }: RunSettings = {},
): C {
  const { vision } = config;
  const isLavis = behaviour === "lavis";
  if (isLavis && lavis === null) {
    throw new UnsupportedModelError(
      `--behaviour lavis: expected a BLIP or BLIP-2 checkpoint, got ${ref}, for which there is one behaviour only; leave it out`,
    );
  }
  const { normEps, lastNormEps, imageSizes = {} } = isLavis && lavis !== null ? lavis : asWritten(vision);
  const side = imageSize ?? imageSizes[vision.trainedSize] ?? vision.imageSize;
  expectSize(ref, vision, side);
  return { ...config, vision: { ...vision, imageSize: side, normEps, lastNormEps } };
}

function asWritten({ normEps, lastNormEps }: ChangingVision): LavisVision {
  return { normEps, lastNormEps };
}

function expectSize(ref: string, { trainedSize, patchSize }: ChangingVision, side: number): void {
  if (side === trainedSize || side % patchSize === 0) return;
  const below = Math.floor(side / patchSize) * patchSize;
  const nearest = below === 0 ? `the least is ${patchSize}` : `the nearest are ${below} and ${below + patchSize}`;
  throw new UnsupportedModelError(
    `--image-size: expected a multiple of ${patchSize}, the side of a patch of ${ref}, got ${side}; ${nearest}`,
  );
}

/** Whether images get a size of this run's choice, which the preprocessor's file does not say. */
export function isResized(
  { imageSize, trainedSize }: ChangingVision,
  { imageSize: chosen }: RunSettings = {},
): boolean {
  return chosen !== undefined || imageSize !== trainedSize;
}

/**
 * What a card says of settings that differ from the checkpoint's own.
 * @param vision of this run
 * @param given as the checkpoint's configuration has it
 */
export function changedBy(
  vision: ChangingVision,
  given: ChangingVision,
  { behaviour = "huggingface" }: RunSettings = {},
): Pick<CheckpointCard, "settings" | "vision"> {
  const isResized = vision.imageSize !== given.trainedSize;
  const settings = {
    ...(isResized && { imageSize: vision.imageSize }),
    ...(behaviour !== "huggingface" && { behaviour }),
  };
  const isNormedOtherwise = vision.normEps !== given.normEps || vision.lastNormEps !== given.lastNormEps;
  const changes = {
    ...(isResized && { positions: "bicubic" as const }),
    ...(isNormedOtherwise && { normEps: [vision.normEps, vision.lastNormEps] as const }),
  };
  return {
    ...(Object.keys(settings).length > 0 && { settings }),
    ...(Object.keys(changes).length > 0 && { vision: changes }),
  };
}

/** The id of a token in tokenizer.json. @throws UnsupportedModelError where it has none */
export async function tokenId(checkpoint: Checkpoint, token: string): Promise<number> {
  const json = (await readSettings(checkpoint, "tokenizer.json")) ?? {};
  const { added_tokens: added, model } = json as {
    added_tokens?: readonly { readonly id?: unknown; readonly content?: unknown }[];
    model?: { readonly vocab?: Readonly<Record<string, unknown>> };
  };
  const id = added?.find(({ content }) => content === token)?.id ?? model?.vocab?.[token];
  if (typeof id === "number" && Number.isSafeInteger(id)) return id;
  throw new UnsupportedModelError(
    `--behaviour lavis: expected ${checkpoint.ref} to have the token ${token}, which its texts begin with there, got a ` +
      "tokenizer.json without it",
  );
}
