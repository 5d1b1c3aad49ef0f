// weights·v / totals, per item and head, in f64.

export interface MixCase {
  readonly batch: number;
  readonly queryTokens: number;
  readonly keyTokens: number;
  readonly heads: number;
  readonly headWidth: number;
  /** (batch): how many keys of each item count; left out, all do. */
  readonly lengths?: readonly number[];
  /** Query token r sees the key tokens 0 to r. */
  readonly causal?: boolean;
  /** (batch, heads, queryTokens, keyTokens) */
  readonly weights: ArrayLike<number>;
  /** (batch, heads, queryTokens) */
  readonly totals: ArrayLike<number>;
  /** (batch, keyTokens, heads, headWidth) */
  readonly v: ArrayLike<number>;
}

/** (batch, queryTokens, heads, headWidth) */
export function attentionMixReference(given: MixCase): Float64Array {
  const { batch, queryTokens, keyTokens, heads, headWidth, weights, totals, v } = given;
  const y = new Float64Array(batch * queryTokens * heads * headWidth);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let r = 0; r < queryTokens; r++) {
        const row = (b * heads + h) * queryTokens + r;
        const count = Math.min(given.lengths?.[b] ?? keyTokens, given.causal ? r + 1 : keyTokens);
        for (let d = 0; d < headWidth; d++) {
          let sum = 0;
          for (let t = 0; t < count; t++) {
            const value = v[((b * keyTokens + t) * heads + h) * headWidth + d] ?? Number.NaN;
            sum += (weights[row * keyTokens + t] ?? Number.NaN) * value;
          }
          y[((b * queryTokens + r) * heads + h) * headWidth + d] = sum / (totals[row] ?? Number.NaN);
        }
      }
    }
  }
  return y;
}
