// One image to its activation in the prompt store: the part of encode and query that batch and answer share.

import { instructedPrompt, promptOf } from "../../answer.ts";
import type { PromptKey } from "../../messages/prompt-store.ts";
import type { Activation, ImageStages, RowOptions } from "../../stages.ts";
import { activationForm, type PromptNames, promptNames } from "./prompt-names.ts";
import { readImage } from "./read-image.ts";
import type { Serving } from "./serving.ts";

export interface EncodeRequest {
  readonly uri: string;
  readonly topology: "fused" | "split";
  /** Publish even what is there. */
  readonly overwrite: boolean;
  /** What the Q-Former reads beside the image; undefined where it reads no text. */
  readonly instruction: string | undefined;
}

/** Keys of what is in the store now. */
export interface Encoded {
  readonly prompt: string;
  readonly features?: string;
  /** Hex SHA-256 of the image file's bytes. */
  readonly image: string;
  /** False when it was there already. */
  readonly made: boolean;
}

/**
 * Make sure that the store has the image's prompt (fused), or its prompt or features (split).
 * @throws ImageError, PathError, PromptStoreError, PromptStoreUnavailableError
 */
export async function encodeImage(serving: Serving, request: EncodeRequest, row: RowOptions): Promise<Encoded> {
  const { stages, prompts, publishing } = serving;
  const bytes = await readImage(request.uri, serving.roots);
  const names = promptNames(bytes, stages.card, request.instruction);
  const isFused = request.topology === "fused";
  const target = isFused ? names.prompt : names.features;
  const { image } = names;
  const keys = { prompt: names.prompt.key, ...(isFused ? {} : { features: names.features.key }), image };
  const { overwrite } = request;
  let made = false;
  await publishing.once(`${target.key} ${overwrite}`, async () => {
    if (!overwrite && ((await prompts.has(names.prompt)) || (!isFused && (await prompts.has(names.features))))) return;
    const activation = isFused
      ? await fusedPrompt(serving, bytes, names, request.instruction, row)
      : await stages.encode(await stages.toPixels(bytes), row);
    await prompts.put(target, activation, { overwrite });
    made = true;
  });
  return { ...keys, made };
}

/** An image to its prompt; where the Q-Former reads an instruction, by way of the features that serve them all. */
async function fusedPrompt(
  serving: Serving,
  image: Uint8Array,
  { features }: PromptNames,
  instruction: string | undefined,
  row: RowOptions,
): Promise<Activation> {
  const { stages } = serving;
  if (instruction === undefined) return promptOf(stages, image, row);
  return instructedPrompt(stages, await sharedFeatures(serving, image, features, row), instruction, row);
}

/** The features of an image: those in the store, or made now and published for its other instructions. */
async function sharedFeatures(
  serving: Serving,
  image: Uint8Array,
  key: PromptKey,
  row: RowOptions,
): Promise<Activation> {
  const { stages, prompts, publishing } = serving;
  let features: Activation | undefined;
  await publishing.once(`${key.key} features`, async () => {
    const found = await prompts.get(key, activationForm("features", stages.card));
    if ("miss" in found) {
      features = await promptOf(stages, image, row);
      await prompts.put(key, features, { overwrite: found.miss !== "absent" });
    } else {
      features = found;
    }
  });
  // Who waited for another's work finds it in the store, unless it is gone again.
  return features ?? sharedFeatures(serving, image, key, row);
}

/**
 * Make sure that the store has the prompt of these features.
 * @param instruction as in EncodeRequest
 * @returns made, or why the features are not to be had
 * @throws PromptStoreError, PromptStoreUnavailableError
 */
export async function queryFeatures(
  serving: Serving,
  keys: { readonly prompt: string; readonly features: string },
  { instruction, overwrite }: Pick<EncodeRequest, "instruction" | "overwrite">,
  row: RowOptions,
): Promise<{ readonly made: boolean } | { readonly missing: "absent" | "damaged" }> {
  const { stages, prompts, publishing } = serving;
  const prompt = keyOf(serving, keys.prompt);
  let made = false;
  let missing: "absent" | "damaged" | undefined;
  await publishing.once(`${prompt.key} ${overwrite}`, async () => {
    if (!overwrite && (await prompts.has(prompt))) return;
    const features = await prompts.get(keyOf(serving, keys.features), activationForm("features", stages.card));
    if ("miss" in features) {
      serving.metrics.miss("query", features.miss);
      missing = features.miss === "absent" ? "absent" : "damaged";
      return;
    }
    const activation =
      instruction === undefined
        ? await stages.query(features, row)
        : await instructedPrompt(stages, features, instruction, row);
    await prompts.put(prompt, activation, { overwrite });
    made = true;
  });
  return missing === undefined ? { made } : { missing };
}

export function keyOf({ stages }: Serving<ImageStages>, key: string): PromptKey {
  return { modelDigest: stages.card.digest, key };
}
