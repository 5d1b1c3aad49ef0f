// Attention of rows over the cached positions of their sequences, causal but for a context: prefill and decoding alike.
// Shader: shaders/cached-attention.wgsl or shaders/cached-attention-lanes.wgsl, as the tables choose

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { LayerCache } from "./append-cache.ts";
import { cachedAttentionJoin } from "./cached-attention-join.ts";
import { cachedAttentionLanes } from "./cached-attention-lanes.ts";
import { type CachedSpans, cachedAttentionOperation, cachedClass } from "./cached-attention-variants.ts";
import { type CachedForm, type CachedMore, cachedForm } from "./cached-form.ts";

/** Bytes of what the spans of some rows leave; below the binding limit of every adapter. */
const mostPartial = 32 * 1024 * 1024;

/**
 * Row r attends to the positions 0 .. position[r] of sequence[r].
 * @param queries (rows, heads * headDim) f32, multiplied by `scale` before the product with the keys.
 * @param table (sequences, positions) u32: the cache slot of each position.
 * @param cursors (rows, 4) u32 of (token, position, slot, sequence); a row without position gets zeros.
 * @param more.positionBias (2 * reach + 1, heads) f32: what a score gets on top by how far the key lies behind its query,
 * from -reach to reach and beyond alike; left out: nothing.
 * @param more.contexts (sequences) u32: so many positions at the start of a sequence see all of each other; left out: none.
 * Not together with a position bias.
 * @returns (rows, heads * headDim) f32
 * @throws ShapeError
 */
export function cachedAttention(
  k: Recorder,
  queries: Tensor,
  cache: LayerCache,
  table: Tensor,
  cursors: Tensor,
  heads: number,
  scale: number,
  more: CachedMore = {},
): Tensor {
  const choice = k.variants.choose(cachedAttentionOperation, cachedClass);
  const form = { ...cachedForm(queries, cache, table, cursors, heads, scale, more), choice };
  const { variant } = choice;
  return variant.shader === "cached-attention-lanes"
    ? cachedAttentionLanes(k, form, variant)
    : cachedAttentionSpans(k, form, variant);
}

/**
 * For GPUs; some rows at a time where what their spans leave would be too much.
 * @param spanForm.SPAN positions that one workgroup reads, with LANES invocations
 * @returns (rows, heads * headDim) f32
 */
export function cachedAttentionSpans(
  k: Recorder,
  form: CachedForm,
  { LANES, SPAN: span }: Pick<CachedSpans, "LANES" | "SPAN">,
): Tensor {
  const { rows, heads, headDim, inputs, params, constants, choice } = form;
  const attended = k.scratch("attended", [rows, heads * headDim]);
  const spans = Math.ceil(params.positions / span);
  const launch = (result: Tensor, firstRow: number, count: number) =>
    k.launch("cached-attention", {
      inputs,
      outputs: { result },
      params: { ...params, firstRow, spans },
      constants: { ...constants, lanes: LANES, span, joined: `${spans > 1}` },
      workgroups: [heads, count, spans],
      ...(choice && { choice }),
    });
  if (spans === 1) {
    launch(attended, 0, rows);
    return attended;
  }
  const together = Math.max(1, Math.floor(mostPartial / (heads * spans * (headDim + 2) * 4)));
  for (let firstRow = 0; firstRow < rows; firstRow += together) {
    const count = Math.min(together, rows - firstRow);
    const partial = k.scratch("partial", [count, heads, spans, headDim + 2]);
    launch(partial, firstRow, count);
    cachedAttentionJoin(k, form, { partial, firstRow, span }, attended);
  }
  return attended;
}
