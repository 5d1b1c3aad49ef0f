// Sampling in f64 over plain arrays: what transformers 4.57.6 keeps (generation/logits_process.py), and which id wins.

import { lowest } from "./decoding.ts";

export interface Sampling {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: readonly [number, number];
  readonly item: readonly [number, number];
}

/** Philox4x32-10: counter and key of 32-bit words, low first. */
export function philox(counter: readonly number[], key: readonly number[]): number[] {
  const word = (value: bigint) => value & 0xffffffffn;
  let [a = 0n, b = 0n, c = 0n, d = 0n] = counter.map(BigInt);
  let [k = 0n, l = 0n] = key.map(BigInt);
  for (let round = 0; round < 10; round++) {
    const [x, z] = [0xd2511f53n * a, 0xcd9e8d57n * c];
    [a, b, c, d] = [(z >> 32n) ^ b ^ k, word(z), (x >> 32n) ^ d ^ l, word(x)];
    [k, l] = [word(k + 0x9e3779b9n), word(l + 0xbb67ae85n)];
  }
  return [a, b, c, d].map(Number);
}

/** The noise of one id after so many generated ones. */
export function noiseOf({ seed, item }: Sampling, generated: number, id: number): number {
  const word = philox([id >> 2, generated, ...item], seed)[id % 4] ?? Number.NaN;
  return -Math.log(-Math.log1p(-(word + 0.5) / 2 ** 32));
}

/** Ids that top-k and then top-p leave of scores that temperature has divided. Forbidden ids (the lowest number) never stay. */
export function keptIds(scores: ArrayLike<number>, { topK, topP }: Pick<Sampling, "topK" | "topP">): Set<number> {
  const at = (id: number) => scores[id] ?? Number.NaN;
  // Ascending; of equal scores the lowest id first, as torch's stable sort.
  let ids = Array.from({ length: scores.length }, (_, id) => id)
    .filter((id) => at(id) > lowest)
    .sort((a, b) => at(a) - at(b) || a - b);
  if (topK > 0 && topK < ids.length) {
    const limit = at(ids[ids.length - topK] ?? -1);
    ids = ids.filter((id) => at(id) >= limit);
  }
  if (topP >= 1) return new Set(ids);
  const high = at(ids.at(-1) ?? -1);
  const weights = ids.map((id) => Math.exp(at(id) - high));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  const kept = ids.filter((_, i) => {
    sum += (weights[i] ?? 0) / total;
    return sum > 1 - topP || i === ids.length - 1;
  });
  return new Set(kept);
}

/** Probabilities over the whole vocabulary. */
export function probabilities(scores: ArrayLike<number>, kept: ReadonlySet<number>): number[] {
  const weights = Array.from({ length: scores.length }, (_, id) =>
    kept.has(id)
      ? Math.exp((scores[id] ?? Number.NaN) - Math.max(...Array.from(kept, (each) => scores[each] ?? 0)))
      : 0,
  );
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** The id that wins, and by how much. @param scores divided by the temperature already */
export function drawn(
  scores: ArrayLike<number>,
  sampling: Sampling,
  generated: number,
): { readonly id: number; readonly value: number; readonly margin: number } {
  const kept = [...keptIds(scores, sampling)];
  const high = Math.max(...kept.map((id) => scores[id] ?? Number.NaN));
  const ranked = kept
    .map((id) => ({ id, value: (scores[id] ?? Number.NaN) - high + noiseOf(sampling, generated, id) }))
    .sort((a, b) => b.value - a.value || a.id - b.id);
  const [first, second] = ranked;
  if (first === undefined) return { id: 0xffffffff, value: lowest, margin: Number.POSITIVE_INFINITY };
  return { ...first, margin: second === undefined ? Number.POSITIVE_INFINITY : first.value - second.value };
}
