// Attention with a query per invocation of a subgroup, for CPU drivers. Shader: shaders/attention-lanes.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type AttentionLaunch, attentionForm, rowStride } from "./attention-sizes.ts";
import { subgroupSize } from "./subgroups.ts";

/**
 * See attention. The adapter has subgroups of one size.
 * q: (batch · queryTokens, any), key, value: (batch · keyTokens, any) f32 -> (batch · queryTokens, heads · headWidth).
 * @param form.QUERIES of each invocation
 * @throws ShapeError
 */
export function attentionLanes(
  k: Recorder,
  { q, key, value, sizes, choice }: AttentionLaunch,
  { QUERIES }: { readonly QUERIES: number },
): Tensor {
  const { batch, queryTokens, keyTokens, heads, headWidth } = sizes;
  const { params, inputs, constants } = attentionForm(q, key, sizes);
  const valueStride = rowStride(value, keyTokens, sizes);
  const { queryStride, keyStride } = params;
  const places = [headWidth, queryStride, keyStride, valueStride, q.column, key.column, value.column];
  const lanes = subgroupSize(k);
  const y = k.scratch("y", [batch * queryTokens, heads * headWidth]);
  k.launch("attention-lanes", {
    inputs: { ...inputs, v: value.rows },
    outputs: { y },
    params: { ...params, valueStride, valueColumn: value.column, fours: Math.ceil(headWidth / 4) },
    constants: {
      ...constants,
      LANES: lanes,
      QUERIES,
      HEAD_WIDTH: headWidth,
      ALIGNED: `${places.every((place) => place % 4 === 0)}`,
    },
    workgroups: [Math.ceil(queryTokens / (lanes * QUERIES)), heads, batch],
    ...(choice && { choice }),
  });
  return y;
}
