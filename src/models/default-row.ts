// The row that generate is asked for most: a caption under default settings. What it takes is told before anything is loaded,
// and its kernels are compiled before it comes.

import type { WorkingBytes } from "../gpu/row-program.ts";
import { byteLength } from "../gpu/tensor.ts";
import { defaultGeneration } from "../stages.ts";
import { bucketsOf, cacheSlots, cacheStride, type GenerateBuckets, itemRows } from "./generate-row.ts";
import type { LanguageModel } from "./language-model.ts";

/** Activations as large as the widest one that a pass has at a time, about. */
const aliveAtOnce = 4;

/** Of one row with a prompt of the model's type. */
export function defaultBuckets({ prompt, cache }: Pick<LanguageModel, "prompt" | "cache">): GenerateBuckets {
  const given = { ...prompt, type: cache.type, bytes: new Uint8Array() };
  return bucketsOf({ prompt: given, textIds: [], generation: defaultGeneration });
}

/** Keys and values of every layer, those of the memory beside those of the sequence, and activations. */
export function defaultRowBytes(model: LanguageModel): WorkingBytes {
  const buckets = defaultBuckets(model);
  const { sequence, encoder, memory } = itemRows(model, buckets);
  const slots = cacheSlots(model, 1, buckets) + memory;
  const widest = Math.max(sequence, encoder, memory) * model.widest;
  return {
    caches: 2 * model.cache.layers * byteLength([slots, cacheStride(model)], model.cache.type),
    scratch: byteLength([model.vocabulary + aliveAtOnce * widest], "f32"),
  };
}
