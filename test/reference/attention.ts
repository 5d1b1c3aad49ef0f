// softmax(scale · q·k + position bias)·v per item and head, in f64.

export interface AttentionCase {
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
  /** (batch, keyTokens, heads, headWidth) */
  readonly v: ArrayLike<number>;
}

/** (batch, queryTokens, heads, headWidth) */
export function attentionReference(given: AttentionCase): Float64Array {
  const { batch, queryTokens, keyTokens, heads, headWidth, scale, biasByDistance, q, k, v } = given;
  const y = new Float64Array(batch * queryTokens * heads * headWidth);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let r = 0; r < queryTokens; r++) {
        const count = Math.min(given.lengths?.[b] ?? keyTokens, given.causal ? r + 1 : keyTokens);
        const row = ((b * queryTokens + r) * heads + h) * headWidth;
        const keyRow = (t: number) => ((b * keyTokens + t) * heads + h) * headWidth;
        const scores = Array.from({ length: count }, (_, t) => {
          let dot = 0;
          for (let d = 0; d < headWidth; d++) {
            dot += (q[row + d] ?? Number.NaN) * (k[keyRow(t) + d] ?? Number.NaN);
          }
          if (biasByDistance === undefined) return dot * scale;
          const { reach, values } = biasByDistance;
          const distance = Math.min(reach, Math.max(-reach, t - r));
          return dot * scale + (values[(distance + reach) * heads + h] ?? Number.NaN);
        });
        const largest = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - largest));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        for (let d = 0; d < headWidth; d++) {
          let sum = 0;
          for (const [t, weight] of weights.entries()) sum += weight * (v[keyRow(t) + d] ?? Number.NaN);
          y[row + d] = sum / total;
        }
      }
    }
  }
  return y;
}
