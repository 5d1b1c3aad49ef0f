// Cached attention for CPU drivers. Shader: shaders/cached-attention-lanes.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { CachedForm } from "./cached-form.ts";
import { subgroupSize } from "./subgroups.ts";

/** Positions of a block. */
const tile = 64;

/** See cachedAttention. The adapter has subgroups of one size, at most `tile`. @returns (rows, heads * headDim) f32 */
export function cachedAttentionLanes(
  k: Recorder,
  { rows, heads, headDim, inputs, params, constants }: CachedForm,
): Tensor {
  const attended = k.scratch("attended", [rows, heads * headDim]);
  const elements = constants.half === "true" ? 8 : 4;
  k.launch("cached-attention-lanes", {
    inputs,
    outputs: { attended },
    params: { ...params, groups: constants.fours === "true" ? headDim / elements : headDim },
    constants: { ...constants, tile, lanes: subgroupSize(k) },
    workgroups: [heads, rows],
  });
  return attended;
}
