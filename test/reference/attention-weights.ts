// exp(scale · q·k - largest) per item, head, query and key, in f64.

export interface WeightsCase {
  readonly batch: number;
  readonly queryTokens: number;
  readonly keyTokens: number;
  readonly heads: number;
  readonly headWidth: number;
  readonly scale: number;
  /** (batch, queryTokens, heads, headWidth) */
  readonly q: ArrayLike<number>;
  /** (batch, keyTokens, heads, headWidth) */
  readonly k: ArrayLike<number>;
}

/** (batch, heads, queryTokens, keyTokens) */
export function attentionWeightsReference(given: WeightsCase): Float64Array {
  const { batch, queryTokens, keyTokens, heads, headWidth, scale, q, k } = given;
  const weights = new Float64Array(batch * heads * queryTokens * keyTokens);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let r = 0; r < queryTokens; r++) {
        const row = ((b * heads + h) * queryTokens + r) * keyTokens;
        let largest = Number.NEGATIVE_INFINITY;
        for (let t = 0; t < keyTokens; t++) {
          let dot = 0;
          for (let d = 0; d < headWidth; d++) {
            const query = q[((b * queryTokens + r) * heads + h) * headWidth + d] ?? Number.NaN;
            dot += query * (k[((b * keyTokens + t) * heads + h) * headWidth + d] ?? Number.NaN);
          }
          weights[row + t] = dot * scale;
          largest = Math.max(largest, dot * scale);
        }
        for (let t = 0; t < keyTokens; t++) weights[row + t] = Math.exp((weights[row + t] ?? Number.NaN) - largest);
      }
    }
  }
  return weights;
}
