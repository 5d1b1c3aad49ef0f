// Where a model looks. Shader: shaders/attention-weights.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type AttentionSizes, attentionForm, type Columns } from "./attention-sizes.ts";

/**
 * The weights of attention, not divided by their sums: exp(scale · q·kᵀ - largest), every query seeing every key.
 * q: (batch · queryTokens, any), key: (batch · keyTokens, any) f32 -> (batch, heads, queryTokens, keyTokens).
 * @throws ShapeError
 */
export function attentionWeights(
  k: Recorder,
  q: Columns,
  key: Columns,
  sizes: Omit<AttentionSizes, "keyLengths" | "positionBias" | "causal">,
): Tensor {
  const { batch, queryTokens, keyTokens, heads, headWidth } = sizes;
  const { reach: _, ...params } = attentionForm(q, key, sizes).params;
  const weights = k.scratch("weights", [batch, heads, queryTokens, keyTokens]);
  // Few queries, as the 32 of a Q-Former or a short text, spread over more workgroups.
  const tile = k.softwareAdapter ? { WORKGROUP: 8, QUERIES: 8, KEYS: 4 } : { WORKGROUP: 32, QUERIES: 4, KEYS: 2 };
  k.launch("attention-weights", {
    inputs: { q: q.rows, k: key.rows },
    outputs: { weights },
    params: { ...params, headWidth },
    constants: tile,
    workgroups: [Math.ceil(queryTokens / tile.QUERIES), heads, batch],
  });
  return weights;
}
