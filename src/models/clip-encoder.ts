// The encoder that CLIP has twice, for images and for texts. Radford et al., "Learning Transferable Visual Models From
// Natural Language Supervision" (2021). Upstream: transformers 4.57.6, models/clip/modeling_clip.py, CLIPEncoderLayer.

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { attention } from "../kernels/attention.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import { type Activation, matmul } from "../kernels/matmul.ts";
import type { Linear, Norm } from "../kernels/weights.ts";

/** One pre-norm block. Linears are width -> width, but fc1 width -> mlpWidth and fc2 back; all have biases. */
export interface ClipLayer {
  readonly norm1: Norm;
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly out: Linear;
  readonly norm2: Norm;
  readonly fc1: Linear;
  readonly fc2: Linear;
}

export interface ClipBlockForm {
  readonly batch: number;
  readonly heads: number;
  readonly activation: Activation;
  /** Texts: a token sees itself and those before it, so that padding behind a text is seen by none of its tokens. */
  readonly causal: boolean;
}

/** x + out(attention(norm1(x))), then + fc2(activation(fc1(norm2(x)))).  x: (batch * tokens, width) -> same */
export function clipBlock(k: Recorder, w: ClipLayer, x: Tensor, form: ClipBlockForm): Tensor {
  const attended = matmul(k, selfAttention(k, w, layerNorm(k, x, w.norm1), form), w.out, { residual: x });
  const { activation } = form;
  const hidden = matmul(k, layerNorm(k, attended, w.norm2), w.fc1, { activation }); // (batch * tokens, mlpWidth)
  return matmul(k, hidden, w.fc2, { residual: attended });
}

/** Heads before their projection.  x: (batch * tokens, width) -> same */
function selfAttention(k: Recorder, w: ClipLayer, x: Tensor, { batch, heads, causal }: ClipBlockForm): Tensor {
  const [rows = 0, width = 0] = x.shape;
  const part = (linear: Linear) => ({ rows: matmul(k, x, linear), column: 0 });
  const tokens = rows / batch;
  const headWidth = width / heads;
  const sizes = { batch, queryTokens: tokens, keyTokens: tokens, heads, headWidth, scale: headWidth ** -0.5, causal };
  return attention(k, part(w.query), part(w.key), part(w.value), sizes);
}
