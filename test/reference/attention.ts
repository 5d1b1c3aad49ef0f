// softmax(scale · q·kᵀ)·v per item and head, in f64.

import { attentionMixReference } from "./attention-mix.ts";
import { attentionWeightsReference, type WeightsCase } from "./attention-weights.ts";

export interface AttentionCase extends WeightsCase {
  /** (batch, keyTokens, heads, headWidth) */
  readonly v: ArrayLike<number>;
}

export function attentionReference(given: AttentionCase): Float64Array {
  return attentionMixReference({ ...given, ...attentionWeightsReference(given) });
}
