// One image to its activation in the prompt store: the part of encode and query that batch and answer share.

import { promptOf } from "../../answer.ts";
import type { PromptKey } from "../../messages/prompt-store.ts";
import type { ImageStages, RowOptions } from "../../stages.ts";
import { activationForm, promptNames } from "./prompt-names.ts";
import { readImage } from "./read-image.ts";
import type { Serving } from "./serving.ts";

export interface EncodeRequest {
  readonly uri: string;
  readonly topology: "fused" | "split";
  /** Publish even what is there. */
  readonly overwrite: boolean;
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
  const names = promptNames(bytes, stages.card);
  const isFused = request.topology === "fused";
  const target = isFused ? names.prompt : names.features;
  const { image } = names;
  const keys = { prompt: names.prompt.key, ...(isFused ? {} : { features: names.features.key }), image };
  const { overwrite } = request;
  let made = false;
  await publishing.once(`${target.key} ${overwrite}`, async () => {
    if (!overwrite && ((await prompts.has(names.prompt)) || (!isFused && (await prompts.has(names.features))))) return;
    const activation = isFused
      ? await promptOf(stages, bytes, row)
      : await stages.encode(await stages.toPixels(bytes), row);
    await prompts.put(target, activation, { overwrite });
    made = true;
  });
  return { ...keys, made };
}

/**
 * Make sure that the store has the prompt of these features.
 * @returns made, or why the features are not to be had
 * @throws PromptStoreError, PromptStoreUnavailableError
 */
export async function queryFeatures(
  serving: Serving,
  keys: { readonly prompt: string; readonly features: string },
  overwrite: boolean,
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
    await prompts.put(prompt, await stages.query(features, row), { overwrite });
    made = true;
  });
  return missing === undefined ? { made } : { missing };
}

export function keyOf({ stages }: Serving<ImageStages>, key: string): PromptKey {
  return { modelDigest: stages.card.digest, key };
}
