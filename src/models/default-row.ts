// The row that generate is asked for most: a caption under default settings. What it takes is told before anything is loaded,
// and its kernels are compiled before it comes.

import type { WorkingBytes } from "../gpu/row-program.ts";
import { byteLength } from "../gpu/tensor.ts";
import { defaultGeneration } from "../stages.ts";
import { bucketsOf, cacheSlots, cacheStride, type GenerateRow, itemRows } from "./generate-row.ts";
import type { LanguageModel } from "./language-model.ts";

/** Activations as large as the widest one that a pass has at a time, about. */
const aliveAtOnce = 4;

/** With zeros for a prompt, in the type of hand-overs, and as few ids as a sequence begins with. */
export function defaultRow({ prompt, cache, imageId, slotsAmongIds }: LanguageModel): GenerateRow {
  const bytes = new Uint8Array(byteLength(prompt.shape, cache.type));
  const textIds = slotsAmongIds ? [imageId ?? 0, 0] : [0];
  return { prompt: { ...prompt, type: cache.type, bytes }, textIds, generation: defaultGeneration };
}

/** Keys and values of every layer, those of the memory beside those of the sequence, and activations. */
export function defaultRowBytes(model: LanguageModel): WorkingBytes {
  const buckets = bucketsOf(defaultRow(model));
  const { sequence, encoder, memory } = itemRows(model, buckets);
  const slots = cacheSlots(model, 1, buckets) + memory;
  const widest = Math.max(sequence, encoder, memory) * model.widest;
  return {
    caches: 2 * model.cache.layers * byteLength([slots, cacheStride(model)], model.cache.type),
    scratch: byteLength([model.vocabulary + aliveAtOnce * widest], "f32"),
  };
}
