// The vision transformer of BLIP-2. Fang et al., "EVA: Exploring the Limits of Masked Visual Representation Learning at
// Scale" (2022). Upstream: transformers 4.57.6, models/blip_2/modeling_blip_2.py, Blip2VisionModel.

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { attention } from "../kernels/attention.ts";
import { embedPatches } from "../kernels/embed-patches.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { matmul } from "../kernels/matmul.ts";
import { unfoldPatches } from "../kernels/unfold-patches.ts";
import type { Linear, Norm } from "../kernels/weights.ts";

/** One pre-norm block. */
export interface VitLayer {
  readonly norm1: Norm;
  /** width -> 3 * width: queries, keys, values. */
  readonly qkv: Linear;
  readonly projection: Linear;
  readonly norm2: Norm;
  /** width -> mlpWidth */
  readonly fc1: Linear;
  readonly fc2: Linear;
}

export interface VitWeights {
  /** (width) */
  readonly classEmbedding: Tensor;
  /** (tokens, width), the class token first */
  readonly positions: Tensor;
  /** 3 * patch * patch -> width */
  readonly patches: Linear;
  readonly layers: readonly VitLayer[];
  /** Over all tokens, the class token too. */
  readonly norm: Norm;
}

export interface VitSizes {
  readonly batch: number;
  readonly patchSize: number;
  readonly heads: number;
}

/** pixels (batch, 3, height, width) -> features (batch * tokens, width) */
export function encodeImage(k: Recorder, w: VitWeights, pixels: Tensor, sizes: VitSizes): Tensor {
  const embedded = imageEmbeddings(k, w, pixels, sizes); //                                  (batch * tokens, width)
  const encoded = w.layers.reduce((x, layer) => vitBlock(k, layer, x, sizes), embedded); //  same
  return layerNorm(k, encoded, w.norm); //                                                   same
}

/** The class token, then the patches, plus positions. pixels (batch, 3, height, width) -> (batch * tokens, width) */
export function imageEmbeddings(
  k: Recorder,
  w: Pick<VitWeights, "classEmbedding" | "positions" | "patches">,
  pixels: Tensor,
  sizes: VitSizes,
): Tensor {
  const unfolded = unfoldPatches(k, pixels, sizes.patchSize); //                           (batch * patches, 3 * patch * patch)
  const patches = matmul(k, unfolded, w.patches); //                                       (batch * patches, width)
  return embedPatches(k, patches, w.classEmbedding, w.positions, sizes.batch);
}

/** x + projection(attention(norm1(x))), then + mlp(norm2(x)).  x: (batch * tokens, width) -> same */
export function vitBlock(k: Recorder, w: VitLayer, x: Tensor, sizes: VitSizes): Tensor {
  const attended = matmul(k, selfAttention(k, w, layerNorm(k, x, w.norm1), sizes), w.projection, { residual: x });
  const hidden = matmul(k, layerNorm(k, attended, w.norm2), w.fc1, { activation: "gelu" }); // (batch * tokens, mlpWidth)
  return matmul(k, hidden, w.fc2, { residual: attended });
}

/** Heads before their projection.  x: (batch * tokens, width) -> same */
function selfAttention(k: Recorder, w: VitLayer, x: Tensor, { batch, heads }: VitSizes): Tensor {
  const [rows = 0, width = 0] = x.shape;
  const fused = matmul(k, x, w.qkv); //                                                      (batch * tokens, 3 * width)
  const part = (index: number) => ({ rows: fused, column: index * width });
  const headWidth = width / heads;
  const tokens = rows / batch;
  const form = { batch, queryTokens: tokens, keyTokens: tokens, heads, headWidth, scale: headWidth ** -0.5 };
  return attention(k, part(0), part(1), part(2), form);
}
