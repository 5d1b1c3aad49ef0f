// Attention in tiles of queries and keys, for GPUs. Shader: shaders/attention-tiled.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type AttentionSizes, attentionForm, type Columns, rowStride } from "./attention-sizes.ts";

/** Queries of each invocation. */
const rows = 4;
/**
 * Columns of each invocation: heads of up to 16, and those of 64, 80, 88 and 128. Few, because each is compiled by itself;
 * more columns than the last would not fit in 16 KiB of workgroup memory, and go to more workgroups.
 */
const shares = [2, 8, 10, 11, 16] as const;

/**
 * See attention.
 * q: (batch · queryTokens, any), key, value: (batch · keyTokens, any) f32 -> (batch · queryTokens, heads · headWidth).
 * @throws ShapeError
 */
export function attentionTiled(k: Recorder, q: Columns, key: Columns, value: Columns, sizes: AttentionSizes): Tensor {
  const { batch, queryTokens, keyTokens, heads, headWidth } = sizes;
  const { params, inputs, constants } = attentionForm(q, key, sizes);
  const valueStride = rowStride(value, keyTokens, sizes);
  const share = shares.find((each) => 8 * each >= headWidth) ?? shares[4];
  const y = k.scratch("y", [batch * queryTokens, heads * headWidth]);
  k.launch("attention-tiled", {
    inputs: { ...inputs, v: value.rows },
    outputs: { y },
    params: { ...params, headWidth, valueStride, valueColumn: value.column },
    constants: { ...constants, ROWS: rows, SHARE: share },
    workgroups: [Math.ceil(queryTokens / (8 * rows)) * Math.ceil(headWidth / (8 * share)), heads, batch],
  });
  return y;
}
