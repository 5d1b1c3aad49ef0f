// The memory of an encoder-decoder language model: what its cross-attention reads at every step.

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { appendCache, type LayerCache } from "../kernels/append-cache.ts";
import { cachedAttention } from "../kernels/cached-attention.ts";
import type { MemoryMaking, MemoryRows } from "./language-model.ts";

/** The keys and values of one layer, (items * memory rows of an item, width) f32 each, to where `attendMemory` reads them. */
export function keepMemory(k: Recorder, memory: MemoryMaking, layer: number, keys: Tensor, values: Tensor): void {
  appendCache(k, keys, values, memory.slots, memory.cache[layer] as LayerCache);
}

/**
 * softmax(scale · q·kᵀ)·v over the rows of each row's item that count; zeros for a padding row.
 * @param queries (rows, width) f32 -> same.
 */
export function attendMemory(
  k: Recorder,
  queries: Tensor,
  memory: MemoryRows,
  layer: number,
  { heads, scale }: { readonly heads: number; readonly scale: number },
): Tensor {
  return cachedAttention(k, queries, memory.cache[layer] as LayerCache, memory.table, memory.cursors, heads, scale);
}
