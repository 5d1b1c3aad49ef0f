// Attention without a cache. Shader: shaders/attention-lanes.wgsl or shaders/attention-tiled.wgsl, as the tables choose

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { attentionLanes } from "./attention-lanes.ts";
import type { AttentionSizes, Columns } from "./attention-sizes.ts";
import { attentionTiled } from "./attention-tiled.ts";
import { attentionClass, attentionOperation } from "./attention-variants.ts";

/**
 * softmax(scale · q·kᵀ)·v within each item and head, every query seeing every key of its item that counts,
 * or with `causal` those up to its own token.
 * q: (batch · queryTokens, any), key, value: (batch · keyTokens, any) f32 -> (batch · queryTokens, heads · headWidth).
 * A query's bits do not depend on the batch, nor on the other queries within a class of their number.
 * @throws ShapeError
 */
export function attention(k: Recorder, q: Columns, key: Columns, value: Columns, sizes: AttentionSizes): Tensor {
  const choice = k.variants.choose(attentionOperation, attentionClass(sizes.queryTokens));
  const { variant } = choice;
  const given = { q, key, value, sizes, choice };
  return variant.shader === "attention-lanes" ? attentionLanes(k, given, variant) : attentionTiled(k, given, variant);
}
