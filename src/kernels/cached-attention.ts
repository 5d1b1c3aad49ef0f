// Causal attention of rows over the cached positions of their sequences: prefill and decoding alike.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import type { LayerCache } from "./append-cache.ts";

/**
 * Row r attends to the positions 0 .. position[r] of sequence[r].
 * @param queries (rows, heads * headDim) f32, multiplied by `scale` before the product with the keys.
 * @param table (sequences, positions) u32: the cache slot of each position.
 * @param cursors (rows, 4) u32 of (token, position, slot, sequence); a row without position gets zeros.
 * @returns (rows, heads * headDim) f32
 */
export function cachedAttention(
  k: Recorder,
  queries: Tensor,
  cache: LayerCache,
  table: Tensor,
  cursors: Tensor,
  heads: number,
  scale: number,
): Tensor {
  const [rows = 0, width = 0] = expectShape("cachedAttention", queries, ["rows", "width"]);
  const [positions = 0] = expectShape("cachedAttention", table, ["sequences", "positions"]).slice(1);
  expectShape("cachedAttention", cursors, [rows, 4]);
  const half = cache.keys.type === "f16";
  const stride = half ? Math.ceil(width / 2) * 2 : width;
  expectShape("cachedAttention", cache.keys, ["slots", stride]);
  expectShape("cachedAttention", cache.values, ["slots", stride]);
  if (width % heads !== 0) {
    throw new ShapeError(`cachedAttention: expected a width divisible by ${heads} heads, got ${width}`);
  }
  const attended = k.scratch("attended", [rows, width]);
  k.launch("cached-attention", {
    inputs: { queries, keyCache: cache.keys, valueCache: cache.values, table, cursors },
    outputs: { attended },
    params: { heads, positions, stride, scale },
    constants: { lanes: k.softwareAdapter ? 8 : 64, headDim: width / heads, half: `${half}` },
    workgroups: [heads, rows],
  });
  return attended;
}
