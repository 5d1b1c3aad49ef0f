// Cached attention for CPU drivers. Shader: shaders/cached-attention-lanes.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { CachedLanes } from "./cached-attention-variants.ts";
import type { CachedForm } from "./cached-form.ts";
import { subgroupSize } from "./subgroups.ts";

/** See cachedAttention. The adapter has subgroups of one size, which divides TILE. @returns (rows, heads * headDim) f32 */
export function cachedAttentionLanes(
  k: Recorder,
  { rows, heads, headDim, inputs, params, constants, choice }: CachedForm,
  { TILE }: Pick<CachedLanes, "TILE">,
): Tensor {
  const attended = k.scratch("attended", [rows, heads * headDim]);
  const elements = constants.half === "true" ? 8 : 4;
  k.launch("cached-attention-lanes", {
    inputs,
    outputs: { attended },
    params: { ...params, groups: constants.fours === "true" ? headDim / elements : headDim },
    constants: { ...constants, tile: TILE, lanes: subgroupSize(k) },
    workgroups: [heads, rows],
    ...(choice && { choice }),
  });
  return attended;
}
