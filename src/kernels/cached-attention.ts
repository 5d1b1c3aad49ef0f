// Attention of rows over the cached positions of their sequences, causal but for a context: prefill and decoding alike.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import type { LayerCache } from "./append-cache.ts";
import { reachOf } from "./attention-sizes.ts";

/**
 * Row r attends to the positions 0 .. position[r] of sequence[r].
 * @param queries (rows, heads * headDim) f32, multiplied by `scale` before the product with the keys.
 * @param table (sequences, positions) u32: the cache slot of each position.
 * @param cursors (rows, 4) u32 of (token, position, slot, sequence); a row without position gets zeros.
 * @param positionBias (2 * reach + 1, heads) f32: what a score gets on top by how far the key lies behind its query, from
 * -reach to reach and beyond alike; left out: nothing.
 * @param contexts (sequences) u32: so many positions at the start of a sequence see all of each other; left out: none. Not
 * together with a position bias.
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
  { positionBias, contexts }: { positionBias?: Tensor; contexts?: Tensor } = {},
): Tensor {
  const [rows = 0, width = 0] = expectShape("cachedAttention", queries, ["rows", "width"]);
  const [sequences = 0, positions = 0] = expectShape("cachedAttention", table, ["sequences", "positions"]);
  if (contexts) expectShape("cachedAttention", contexts, [sequences], "u32");
  if (contexts && positionBias) {
    throw new ShapeError("cachedAttention: expected a position bias or contexts, got both");
  }
  expectShape("cachedAttention", cursors, [rows, 4]);
  const half = cache.keys.type === "f16";
  const stride = half ? Math.ceil(width / 2) * 2 : width;
  expectShape("cachedAttention", cache.keys, ["slots", stride]);
  expectShape("cachedAttention", cache.values, ["slots", stride]);
  if (width % heads !== 0) {
    throw new ShapeError(`cachedAttention: expected a width divisible by ${heads} heads, got ${width}`);
  }
  const reach = positionBias ? reachOf(positionBias, heads) : 0;
  const attended = k.scratch("attended", [rows, width]);
  k.launch("cached-attention", {
    inputs: {
      queries,
      keyCache: cache.keys,
      valueCache: cache.values,
      table,
      cursors,
      positionBias: positionBias ?? queries,
      contexts: contexts ?? cursors,
    },
    outputs: { attended },
    params: { heads, positions, stride, scale, reach },
    constants: {
      lanes: k.softwareAdapter ? 8 : 64,
      headDim: width / heads,
      half: `${half}`,
      hasPositionBias: `${positionBias !== undefined}`,
      hasContexts: `${contexts !== undefined}`,
    },
    workgroups: [heads, rows],
  });
  return attended;
}
