// The values, mixed by the weights of attention. Shader: shaders/attention-mix.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { type AttentionSizes, type AttentionWeights, type Columns, rowStride } from "./attention-weights.ts";

/**
 * weights·v / totals, written to the rows of `y` that belong to the items of `given`.
 * v: (batch · keyTokens, any), y: (batch · queryTokens, heads · headWidth) f32. @throws ShapeError
 */
export function attentionMix(
  k: Recorder,
  given: AttentionWeights,
  value: Columns,
  sizes: AttentionSizes,
  y: Tensor,
): void {
  const { batch, queryTokens, keyTokens, heads, headWidth, keyLengths } = sizes;
  const { weights, totals, firstItem, items } = given;
  expectShape("attention", weights, [items, heads, queryTokens, keyTokens], "f32");
  expectShape("attention", totals, [items, heads, queryTokens], "f32");
  expectShape("attention", y, [batch * queryTokens, heads * headWidth], "f32");
  if (keyLengths) expectShape("attention", keyLengths, [batch], "u32");
  const valueStride = rowStride(value, keyTokens, sizes);
  // As many columns as a head has, in few sizes, because each is compiled by itself.
  const columns = Math.min(16, Math.ceil(headWidth / 32) * 4);
  const tile = k.softwareAdapter
    ? { WORKGROUP: 8, QUERIES: 8, COLUMNS: columns }
    : { WORKGROUP: 32, QUERIES: 4, COLUMNS: 2 };
  const columnGroups = Math.ceil(headWidth / (tile.WORKGROUP * tile.COLUMNS));
  k.launch("attention-mix", {
    inputs: { weights, totals, v: value.rows, lengths: keyLengths ?? totals },
    outputs: { y },
    params: { heads, headWidth, queryTokens, keyTokens, valueStride, valueColumn: value.column, firstItem },
    constants: { HAS_LENGTHS: keyLengths ? "true" : "false", CAUSAL: sizes.causal ? "true" : "false", ...tile },
    workgroups: [Math.ceil(queryTokens / tile.QUERIES) * columnGroups, heads, items],
  });
}
