// Attention in tiles of queries and keys, for GPUs. Shader: shaders/attention-tiled.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type AttentionLaunch, attentionForm, rowStride } from "./attention-sizes.ts";

/** Invocations of a workgroup: eight rows of eight. */
export const tiledInvocations = 64;
/**
 * Columns of each invocation: heads of up to 16, and those of 64, 80, 88 and 128. Few, because each is compiled by itself;
 * more columns than the last would not fit in 16 KiB of workgroup memory, and go to more workgroups.
 */
const shares = [2, 8, 10, 11, 16] as const;

/** Workgroup memory of the shader, with the largest of `shares`. */
export function tiledAttentionBytes({ ROWS }: { readonly ROWS: number }): number {
  const tile = 8 * ROWS;
  const [pitch, values] = [17, 8]; // as the shader has them
  return 4 * (2 * tile * pitch + tile * (tile + 1) + values * 8 * shares[4] + tile * 8);
}

/**
 * See attention.
 * q: (batch · queryTokens, any), key, value: (batch · keyTokens, any) f32 -> (batch · queryTokens, heads · headWidth).
 * @param form.ROWS queries of each invocation
 * @throws ShapeError
 */
export function attentionTiled(
  k: Recorder,
  { q, key, value, sizes, choice }: AttentionLaunch,
  { ROWS }: { readonly ROWS: number },
): Tensor {
  const { batch, queryTokens, keyTokens, heads, headWidth } = sizes;
  const { params, inputs, constants } = attentionForm(q, key, sizes);
  const valueStride = rowStride(value, keyTokens, sizes);
  const share = shares.find((each) => 8 * each >= headWidth) ?? shares[4];
  const y = k.scratch("y", [batch * queryTokens, heads * headWidth]);
  k.launch("attention-tiled", {
    inputs: { ...inputs, v: value.rows },
    outputs: { y },
    params: { ...params, headWidth, valueStride, valueColumn: value.column },
    constants: { ...constants, ROWS, SHARE: share },
    workgroups: [Math.ceil(queryTokens / (8 * ROWS)) * Math.ceil(headWidth / (8 * share)), heads, batch],
    ...(choice && { choice }),
  });
  return y;
}
