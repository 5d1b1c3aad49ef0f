// The keys of one image's activations, and what a reader expects under them.

import { sha256 } from "../../jobs/store.ts";
import { promptKey } from "../../messages/prompt-key.ts";
import type { ActivationForm, PromptKey } from "../../messages/prompt-store.ts";
import type { ModelCard } from "../../stages.ts";

/** Version of the code that turns bytes into pixels. Any change of a pixel must change it: it is part of every key. */
const preprocessingVersion = 1;

export interface PromptNames {
  readonly prompt: PromptKey;
  readonly features: PromptKey;
  /** Hex SHA-256 of the image file's bytes. */
  readonly image: string;
}

export function promptNames(image: Uint8Array, card: ModelCard): PromptNames {
  const imageSha256 = sha256(image);
  const shared = {
    imageSha256,
    modelDigest: card.digest,
    frame: 0,
    image: card.image,
    preprocessing: preprocessingVersion,
    dtype: card.dtype,
  };
  return {
    prompt: promptKey({ ...shared, kind: "prompt" }),
    features: promptKey({ ...shared, kind: "features" }),
    image: imageSha256,
  };
}

/** Shape and type of what this model's stages hand over. */
export function activationForm(kind: "features" | "prompt", card: ModelCard): ActivationForm {
  return { kind, type: card.dtype === "f32" ? "f32" : "f16", shape: kind === "prompt" ? card.prompt : card.features };
}

/** Bytes of one activation of this model. */
export function activationBytes(kind: "features" | "prompt", card: ModelCard): number {
  const { type, shape } = activationForm(kind, card);
  return shape[0] * shape[1] * (type === "f32" ? 4 : 2);
}
