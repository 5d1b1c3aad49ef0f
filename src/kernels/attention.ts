// Attention without a cache.

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { attentionLanes } from "./attention-lanes.ts";
import type { AttentionSizes, Columns } from "./attention-sizes.ts";
import { attentionTiled } from "./attention-tiled.ts";
import { subgroupSize } from "./subgroups.ts";

/**
 * softmax(scale · q·kᵀ)·v within each item and head, every query seeing every key of its item that counts,
 * or with `causal` those up to its own token.
 * q: (batch · queryTokens, any), key, value: (batch · keyTokens, any) f32 -> (batch · queryTokens, heads · headWidth).
 * @throws ShapeError
 */
export function attention(k: Recorder, q: Columns, key: Columns, value: Columns, sizes: AttentionSizes): Tensor {
  const variant = attentionVariant(k, sizes.queryTokens);
  if (variant.kernel === "tiled") return attentionTiled(k, q, key, value, sizes);
  return attentionLanes(k, q, key, value, sizes, variant.queries);
}

type AttentionVariant = { readonly kernel: "tiled" } | { readonly kernel: "lanes"; readonly queries: number };

/**
 * Processor time on lavapipe 25.0 (256-bit vectors), 257 queries and keys in 16 heads of 88: lanes with two queries each
 * 20 ms, with one 28; scores and values as two products with the weights in memory between them 66. 32 queries over 257 keys
 * in 12 heads of 64: 1.2, 1.9 and 4.7. On SwiftShader: 111, 158 and 131.
 */
function attentionVariant(k: Pick<Recorder, "softwareAdapter" | "variants">, queryTokens: number): AttentionVariant {
  const lanes = subgroupSize(k);
  if (!k.softwareAdapter || lanes === 0) return { kernel: "tiled" };
  return { kernel: "lanes", queries: queryTokens > lanes ? 2 : 1 };
}
