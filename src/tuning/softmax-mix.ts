// One element of attention in f64, for the trials of its kernels.

/** What one query sees: `keys` of them, and of their values the one column of the element. */
export interface Seen {
  readonly keys: number;
  readonly headWidth: number;
  readonly scale: number;
  /** Column d of the query. */
  query(d: number): number;
  /** Column d of key t. */
  key(t: number, d: number): number;
  /** At most 1. */
  value(t: number): number;
}

/** The sum of the values, weighted by softmax(scale · query · key), and how far sums in f32 may be from it. */
export function softmaxMix(seen: Seen): { readonly value: number; readonly tolerance: number } {
  const { keys, headWidth, scale } = seen;
  const scores = Array.from({ length: keys }, (_, t) => {
    let score = 0;
    for (let d = 0; d < headWidth; d++) score += scale * seen.query(d) * seen.key(t, d);
    return score;
  });
  const largest = Math.max(...scores);
  let total = 0;
  let mixed = 0;
  for (const [t, score] of scores.entries()) {
    const weight = Math.exp(score - largest);
    total += weight;
    mixed += weight * seen.value(t);
  }
  // A score carries a few roundings of its size, and exp turns them into a factor.
  const size = scores.reduce((most, score) => Math.max(most, Math.abs(score)), 0);
  return { value: mixed / total, tolerance: (8 + 4 * size) * 2 ** -22 };
}
