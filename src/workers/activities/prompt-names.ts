// The keys of one image's activations, and what a reader expects under them.

import { sha256 } from "../../jobs/store.ts";
import { promptKey } from "../../messages/prompt-key.ts";
import type { ActivationForm, PromptKey } from "../../messages/prompt-store.ts";
import type { ModelCard } from "../../stages.ts";

/** Version of the code that turns bytes into pixels. Any change of a pixel must change it: it is part of every key. */
const preprocessingVersion = 1;

export interface PromptNames {
  /** Of what generate takes; the key of the features where it takes those. */
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
    ...(card.vision && { vision: card.vision }),
    preprocessing: preprocessingVersion,
    dtype: card.dtype,
  };
  return {
    prompt: promptKey({ ...shared, kind: card.handsOver }),
    features: promptKey({ ...shared, kind: "features" }),
    image: imageSha256,
  };
}

/** Kind, shape and type of what this model's stages hand over. @param what features: of encode; prompt: to generate */
export function activationForm(what: "features" | "prompt", card: ModelCard): ActivationForm {
  const type = card.dtype === "f32" ? "f32" : "f16";
  return what === "prompt"
    ? { kind: card.handsOver, type, shape: card.prompt }
    : { kind: "features", type, shape: card.features };
}

/** Bytes of one activation of this model. */
export function activationBytes(what: "features" | "prompt", card: ModelCard): number {
  const { type, shape } = activationForm(what, card);
  return shape[0] * shape[1] * (type === "f32" ? 4 : 2);
}
