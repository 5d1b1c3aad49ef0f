// Causal attention over scattered cache rows, in f64.

export interface CachedAttentionCase {
  readonly heads: number;
  readonly headDim: number;
  readonly scale: number;
  /** (rows, heads * headDim) */
  readonly queries: ArrayLike<number>;
  /** (slots, stride) */
  readonly keys: ArrayLike<number>;
  readonly values: ArrayLike<number>;
  readonly stride: number;
  /** Per row: the cache slots that it sees, in order; none for padding. */
  readonly visible: readonly (readonly number[])[];
  /** (2 · reach + 1, heads), added by distance from query to key; left out, nothing is. */
  readonly positionBias?: { readonly reach: number; readonly values: ArrayLike<number> } | undefined;
}

/** (rows, heads * headDim) */
export function cachedAttentionReference(given: CachedAttentionCase): Float64Array {
  const { heads, headDim, scale, queries, keys, values, stride, visible, positionBias } = given;
  const width = heads * headDim;
  const y = new Float64Array(visible.length * width);
  for (const [row, slots] of visible.entries()) {
    for (let head = 0; head < heads; head++) {
      const scores = slots.map((slot, p) => {
        let score = 0;
        for (let d = head * headDim; d < (head + 1) * headDim; d++) {
          score += (queries[row * width + d] ?? Number.NaN) * scale * (keys[slot * stride + d] ?? Number.NaN);
        }
        if (positionBias) {
          const { reach, values } = positionBias;
          const distance = Math.max(-reach, p - (slots.length - 1));
          score += values[(distance + reach) * heads + head] ?? Number.NaN;
        }
        return score;
      });
      const high = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - high));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      for (let d = head * headDim; d < (head + 1) * headDim; d++) {
        for (const [i, slot] of slots.entries()) {
          y[row * width + d] =
            (y[row * width + d] ?? 0) + ((weights[i] ?? 0) / total) * (values[slot * stride + d] ?? Number.NaN);
        }
      }
    }
  }
  return y;
}
