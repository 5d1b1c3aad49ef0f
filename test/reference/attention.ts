// y = softmax(scale · q·kᵀ)·v per item and head, in f64.

export interface AttentionCase {
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
  readonly v: ArrayLike<number>;
}

export function attentionReference(given: AttentionCase): Float64Array {
  const { batch, queryTokens, keyTokens, heads, headWidth, scale, q, k, v } = given;
  const y = new Float64Array(batch * queryTokens * heads * headWidth);
  const at = (tokens: number, b: number, t: number, h: number) => ((b * tokens + t) * heads + h) * headWidth;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let r = 0; r < queryTokens; r++) {
        const scores = new Float64Array(keyTokens);
        for (let t = 0; t < keyTokens; t++) {
          let dot = 0;
          for (let d = 0; d < headWidth; d++) {
            dot += (q[at(queryTokens, b, r, h) + d] ?? Number.NaN) * (k[at(keyTokens, b, t, h) + d] ?? Number.NaN);
          }
          scores[t] = dot * scale;
        }
        const largest = Math.max(...scores);
        let sum = 0;
        for (let t = 0; t < keyTokens; t++) {
          scores[t] = Math.exp((scores[t] ?? Number.NaN) - largest);
          sum += scores[t] ?? Number.NaN;
        }
        for (let d = 0; d < headWidth; d++) {
          let mixed = 0;
          for (let t = 0; t < keyTokens; t++) {
            mixed += ((scores[t] ?? Number.NaN) / sum) * (v[at(keyTokens, b, t, h) + d] ?? Number.NaN);
          }
          y[at(queryTokens, b, r, h) + d] = mixed;
        }
      }
    }
  }
  return y;
}
