// What the row scheduler runs: a program turns rows into results, in batches, one bounded submit at a time.

/** A finished row of a batch: its place in the batch and what came of it. */
export type RowResult<Out> =
  | { readonly row: number; readonly value: Out }
  | { readonly row: number; readonly error: Error };

/** Rows under way together. Dropped rows are only skipped at the next step; nothing of theirs is returned. */
export interface Batch<Out, In = never> {
  /**
   * One bounded submit (≤ 250 ms on slow drivers), awaited.
   * @param dropped rows whose callers have gone; need not be computed any more.
   * @param onPartial told what there is so far of rows that go on, where a program makes its results piece by piece
   * @returns rows that finished in this step; each row finishes exactly once.
   */
  step(dropped: ReadonlySet<number>, onPartial?: (row: number, value: Out) => void): Promise<readonly RowResult<Out>[]>;
  /** Where rows may join a batch that is under way, in places that others left or nobody had. */
  readonly joining?: Joining<In>;
  /** Return pooled state. Called once, after the last row finished or was dropped, or a step threw. */
  release(): void;
}

/** Bytes on the adapter beside the weights, about. */
export interface WorkingBytes {
  /** What is kept of a row from submit to submit. */
  readonly caches: number;
  /** Activations, which programs share. */
  readonly scratch: number;
}

export interface Joining<In> {
  /** How many rows may join now. */
  room(): number;
  /**
   * Rows of the batch's key take part from the next step on, at most `room()` of them. Their places count on from those
   * that the batch had so far: no place is given twice.
   * @throws what keeps one of them from starting; then none has joined, and the batch is as it was.
   */
  join(rows: readonly In[]): void;
}

/** One stage of one model. Rows of one program are batched whichever caller they came from. */
export interface RowProgram<In, Out> {
  readonly name: string;
  /** Most rows that one batch may hold, for rows of this key. */
  maxRows(key: string): number;
  /** Rows share a batch only when their keys are equal (shapes, buckets, generation settings). */
  key(row: In): string;
  start(rows: readonly In[]): Batch<Out, In>;
  /** What a batch of one row under default settings takes. Left out: nothing beside the other programs. */
  working?(): WorkingBytes;
  /**
   * Record what such a batch replays, so that its kernels are compiled before the first row is there. Nothing may run yet.
   * Left out: there is nothing, or too much, to choose from.
   */
  prepare?(): Promise<void>;
}

/** A program whose rows are changed before it sees them. */
export function withRows<In, Out>(program: RowProgram<In, Out>, change: (row: In) => In): RowProgram<In, Out> {
  return {
    name: program.name,
    maxRows: (key) => program.maxRows(key),
    key: (row) => program.key(change(row)),
    start(rows) {
      const { joining, ...batch } = program.start(rows.map(change));
      if (joining === undefined) return batch;
      return { ...batch, joining: { room: joining.room, join: (more) => joining.join(more.map(change)) } };
    },
    ...(program.working && { working: () => program.working?.() as WorkingBytes }),
    ...(program.prepare && { prepare: async () => program.prepare?.() }),
  };
}
