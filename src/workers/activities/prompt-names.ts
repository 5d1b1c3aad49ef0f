// The keys of one image's activations, and what a reader expects under them.

import { sha256 } from "../../jobs/store.ts";
import { promptKey } from "../../messages/prompt-key.ts";
import type { ActivationForm, PromptKey } from "../../messages/prompt-store.ts";
import { type CheckpointCard, featuresForm, type ModelCard } from "../../stages.ts";

/** Version of the code that turns bytes into pixels. Any change of a pixel must change it: it is part of every key. */
const preprocessingVersion = 1;

export interface PromptNames {
  /** Of what generate takes; the key of the features where it takes those. */
  readonly prompt: PromptKey;
  readonly features: PromptKey;
  /** Hex SHA-256 of the image file's bytes. */
  readonly image: string;
}

/** @param instruction what the Q-Former reads; undefined where it reads none */
export function promptNames(image: Uint8Array, card: ModelCard, instruction: string | undefined): PromptNames {
  const imageSha256 = sha256(image);
  const shared = sharedParts(imageSha256, card);
  return {
    prompt: promptKey({ ...shared, kind: card.handsOver, ...(instruction !== undefined && { instruction }) }),
    features: promptKey({ ...shared, kind: "features" }),
    image: imageSha256,
  };
}

/** The same of a model that compares: it hands over features alone. */
export function featuresName(imageSha256: string, card: CheckpointCard): PromptKey {
  return promptKey({ ...sharedParts(imageSha256, card), kind: "features" });
}

function sharedParts(imageSha256: string, card: CheckpointCard) {
  return {
    imageSha256,
    modelDigest: card.digest,
    frame: 0,
    image: card.image,
    ...(card.vision && { vision: card.vision }),
    preprocessing: preprocessingVersion,
    dtype: card.dtype,
  };
}

/** Kind, shape and type of what this model's stages hand over. @param what features: of encode; prompt: to generate */
export function activationForm(what: "features" | "prompt", card: ModelCard): ActivationForm {
  const features = featuresForm(card);
  return what === "prompt" ? { ...features, kind: card.handsOver, shape: card.prompt } : features;
}

/** Bytes of one activation of this form. */
export function bytesOfForm({ type, shape }: ActivationForm): number {
  return shape[0] * shape[1] * (type === "f32" ? 4 : 2);
}

/** Bytes of one activation of this model. */
export function activationBytes(what: "features" | "prompt", card: ModelCard): number {
  return bytesOfForm(activationForm(what, card));
}
