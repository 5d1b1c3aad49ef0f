// Recordings by what they were recorded for, a bounded number of them: the least recently used idle one goes first.

export interface Lease<V> {
  readonly value: V;
  /** The batch is done with it; another may take it. */
  release(): void;
}

interface Entry<V> {
  readonly key: string;
  readonly value: V;
  busy: boolean;
}

/**
 * What is cached is one batch's worth of recordings and state, `V`. Two batches of the same key that are under way at
 * the same time need two, so a key may have several entries.
 *
 * Keys are made by `recordingKey`: everything that the recorded list depends on.
 */
export class RecordingCache<V extends { destroy(): void }> {
  readonly #capacity: number;
  /** Least recently used first. */
  #entries: Entry<V>[] = [];

  /** @param capacity entries kept; busy ones count, and are never evicted. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** An idle entry of this key, else a new one. Release it when the batch is released. */
  async acquire(key: string, make: () => Promise<V>): Promise<Lease<V>> {
    const idle = this.#entries.find((entry) => entry.key === key && !entry.busy);
    if (idle) {
      idle.busy = true;
      this.#entries = [...this.#entries.filter((entry) => entry !== idle), idle];
      return this.#lease(idle);
    }
    // Room first, so that the old buffers are free before the new ones are allocated.
    this.#evict(this.#capacity - 1);
    const entry = { key, value: await make(), busy: true };
    this.#entries.push(entry);
    return this.#lease(entry);
  }

  get size(): number {
    return this.#entries.length;
  }

  /** Destroy all entries, busy ones too. */
  destroy(): void {
    for (const { value } of this.#entries.splice(0)) value.destroy();
  }

  #lease(entry: Entry<V>): Lease<V> {
    let released = false;
    return {
      value: entry.value,
      release: () => {
        if (released) return;
        released = true;
        entry.busy = false;
        this.#evict(this.#capacity);
      },
    };
  }

  #evict(most: number): void {
    while (this.#entries.length > most) {
      const at = this.#entries.findIndex((entry) => !entry.busy);
      if (at < 0) return;
      this.#entries.splice(at, 1)[0]?.value.destroy();
    }
  }
}

/** Sizes that a list is recorded for; rows and lengths are buckets, rounded up with `bucket`. */
export function recordingKey(program: string, sizes: { rows: number; text?: number; cache?: number }): string {
  return `${program} rows=${sizes.rows} text=${sizes.text ?? 0} cache=${sizes.cache ?? 0}`;
}

/** The smallest bucket that holds `count`: 1, 2, 4, … times `smallest`. */
export function bucket(count: number, smallest = 1): number {
  let size = smallest;
  while (size < count) size *= 2;
  return size;
}
