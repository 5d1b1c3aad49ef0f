// exp(scale · q·k + position bias - largest) and its sums over the keys, per item, head and query, in f64.

export interface WeightsCase {
  readonly batch: number;
  readonly queryTokens: number;
  readonly keyTokens: number;
  readonly heads: number;
  readonly headWidth: number;
  readonly scale: number;
  /** (batch): how many keys of each item count; left out, all do. */
  readonly lengths?: readonly number[];
  /** (2 · reach + 1, heads), added by distance from query to key; left out, nothing is. */
  readonly biasByDistance?: { readonly reach: number; readonly values: ArrayLike<number> };
  /** Query token r sees the key tokens 0 to r. */
  readonly causal?: boolean;
  /** (batch, queryTokens, heads, headWidth) */
  readonly q: ArrayLike<number>;
  /** (batch, keyTokens, heads, headWidth) */
  readonly k: ArrayLike<number>;
}

/** weights: (batch, heads, queryTokens, keyTokens), 0 for keys that are not seen; totals: (batch, heads, queryTokens). */
export function attentionWeightsReference(given: WeightsCase): { weights: Float64Array; totals: Float64Array } {
  const { batch, queryTokens, keyTokens, heads, headWidth, scale, biasByDistance, q, k } = given;
  const weights = new Float64Array(batch * heads * queryTokens * keyTokens);
  const totals = new Float64Array(batch * heads * queryTokens);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let r = 0; r < queryTokens; r++) {
        const row = (b * heads + h) * queryTokens + r;
        const count = Math.min(given.lengths?.[b] ?? keyTokens, given.causal ? r + 1 : keyTokens);
        let largest = Number.NEGATIVE_INFINITY;
        for (let t = 0; t < count; t++) {
          let dot = 0;
          for (let d = 0; d < headWidth; d++) {
            const query = q[((b * queryTokens + r) * heads + h) * headWidth + d] ?? Number.NaN;
            dot += query * (k[((b * keyTokens + t) * heads + h) * headWidth + d] ?? Number.NaN);
          }
          let score = dot * scale;
          if (biasByDistance) {
            const { reach, values } = biasByDistance;
            const distance = Math.min(reach, Math.max(-reach, t - r));
            score += values[(distance + reach) * heads + h] ?? Number.NaN;
          }
          weights[row * keyTokens + t] = score;
          largest = Math.max(largest, score);
        }
        for (let t = 0; t < count; t++) {
          const weight = Math.exp((weights[row * keyTokens + t] ?? Number.NaN) - largest);
          weights[row * keyTokens + t] = weight;
          totals[row] = (totals[row] ?? Number.NaN) + weight;
        }
      }
    }
  }
  return { weights, totals };
}
