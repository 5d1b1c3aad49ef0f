// The few largest of many scores.

export interface Scored {
  readonly score: number;
  readonly place: number;
}

/** Keeps the `most` largest scores; of equal ones those with the lower place. */
export class Largest {
  readonly #most: number;
  /** In order. */
  readonly #kept: Scored[] = [];

  constructor(most: number) {
    this.#most = most;
  }

  add(score: number, place: number): void {
    const kept = this.#kept;
    const last = kept.at(-1);
    if (kept.length === this.#most) {
      // Most scores end here, and make no object.
      if (last === undefined || score < last.score || !isBefore({ score, place }, last)) return;
      kept.pop();
    }
    let at = kept.length;
    while (at > 0 && isBefore({ score, place }, kept[at - 1] as Scored)) at -= 1;
    kept.splice(at, 0, { score, place });
  }

  /** What a score must reach to be kept. */
  get least(): number {
    return this.#kept.length < this.#most
      ? Number.NEGATIVE_INFINITY
      : (this.#kept.at(-1)?.score ?? Number.POSITIVE_INFINITY);
  }

  /** Largest first. */
  get inOrder(): readonly Scored[] {
    return this.#kept;
  }
}

function isBefore(a: Scored, b: Scored): boolean {
  return a.score > b.score || (a.score === b.score && a.place < b.place);
}
