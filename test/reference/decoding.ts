// Greedy and beam search in f64 over plain arrays, by the rules of transformers 4.57.6 (generation/utils.py).

export interface Settings {
  readonly maxNew: number;
  readonly minNew: number;
  readonly penalty: number;
  readonly lengthPenalty: number;
}

/** What an id that may not come yet scores. */
export const lowest = -3.4028234663852886e38;
const hopeless = -1e9;

/** Repetition penalty, then no end before minNew ids. */
export function penalised(
  scores: ArrayLike<number>,
  seen: ReadonlySet<number>,
  generated: number,
  { minNew, penalty }: Settings,
  stopIds: readonly number[],
): Float64Array {
  return Float64Array.from({ length: scores.length }, (_, id) => {
    if (generated < minNew && stopIds.includes(id)) return lowest;
    const score = scores[id] ?? Number.NaN;
    if (!seen.has(id)) return score;
    return score < 0 ? score * penalty : score / penalty;
  });
}

export function logSoftmax(logits: ArrayLike<number>): Float64Array {
  let high = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) high = Math.max(high, logits[i] ?? Number.NaN);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] ?? Number.NaN) - high);
  return Float64Array.from({ length: logits.length }, (_, i) => (logits[i] ?? Number.NaN) - high - Math.log(sum));
}

/** [value, index] pairs from the highest value down; of equal ones the lowest index first. */
export function ranked(values: ArrayLike<number>): [number, number][] {
  return Array.from({ length: values.length }, (_, i): [number, number] => [values[i] ?? Number.NaN, i]).sort(
    (a, b) => b[0] - a[0] || a[1] - b[1],
  );
}

export interface Hypothesis {
  readonly ids: readonly number[];
  readonly score: number;
  /** False for what only fills the list. */
  readonly real: boolean;
}

/** Beam search of one item, step by step. */
export class BeamSearch {
  readonly beams: number;
  readonly keep: number;
  readonly settings: Settings;
  readonly stopIds: readonly number[];
  readonly promptIds: readonly number[];
  running: { ids: number[]; score: number }[];
  ended: Hypothesis[];
  parents: number[] = [];
  generated = 0;
  done = false;

  constructor(beams: number, settings: Settings, stopIds: readonly number[], promptIds: readonly number[]) {
    this.beams = beams;
    this.keep = Math.max(2, 1 + stopIds.length) * beams;
    this.settings = settings;
    this.stopIds = stopIds;
    this.promptIds = promptIds;
    this.running = Array.from({ length: beams }, (_, beam) => ({ ids: [], score: beam === 0 ? 0 : hopeless }));
    this.ended = Array.from({ length: beams }, () => ({ ids: [], score: hopeless, real: false }));
  }

  /** Scores of every (beam, id) after penalties and with the running scores; logits: one list per beam. */
  scores(logits: readonly ArrayLike<number>[]): number[] {
    return this.running.flatMap(({ ids, score }, beam) => {
      const seen = new Set([...this.promptIds, ...ids]);
      const own = penalised(logSoftmax(logits[beam] ?? []), seen, this.generated, this.settings, this.stopIds);
      return Array.from(own, (value) => (value === lowest ? lowest : value + score));
    });
  }

  step(logits: readonly ArrayLike<number>[]): void {
    const vocabulary = logits[0]?.length ?? 0;
    this.choose(ranked(this.scores(logits)).slice(0, this.keep), vocabulary);
  }

  /** From the candidates [score, beam * vocabulary + id], best first. */
  choose(candidates: readonly (readonly [number, number])[], vocabulary: number): void {
    const length = this.generated + 1;
    const divisor = length ** this.settings.lengthPenalty;
    const continued = candidates.map(([score, place]) => {
      const parent = Math.floor(place / vocabulary);
      const id = place % vocabulary;
      const ids = [...(this.running[parent]?.ids ?? []), id];
      return { ids, parent, score, hit: length >= this.settings.maxNew || this.stopIds.includes(id) };
    });
    const merged: Hypothesis[] = [
      ...this.ended,
      ...continued.map(({ ids, score, hit }, k) => {
        const real = hit && k < this.beams;
        return { ids, score: score / divisor + (real ? 0 : hopeless), real };
      }),
    ];
    const open = ranked(continued.map(({ score, hit }) => score + (hit ? hopeless : 0))).slice(0, this.beams);
    this.parents = open.map(([, k]) => continued[k]?.parent ?? -1);
    this.running = open.map(([score, k]) => ({ ids: continued[k]?.ids ?? [], score }));
    const best = ranked(merged.map(({ score }) => score)).slice(0, this.beams);
    this.ended = best.map(([, k]) => merged[k] as Hypothesis);
    const worst = Math.min(...this.ended.map(({ score }) => score));
    const improvable = this.ended.some(({ real }) => (open[0]?.[0] ?? 0) / divisor > (real ? worst : hopeless));
    this.generated = length;
    this.done = !improvable || continued.every(({ hit }) => hit);
  }
}
