// Rows of all callers meet here: batched per program and key, one bounded submit at a time, the urgent first.
//
// At every submit boundary, in this order:
//   1. rows whose signal was aborted are given up;
//   2. waiting rows join batches of their key and priority, as far as those have room;
//   3. waiting interactive rows start a batch, then waiting batch-priority rows, as far as there is room;
//   4. the batch that waited longest takes its next step; batch-priority ones only when no interactive batch is there.
// A row's result never depends on the others of its batch, so who shares with whom is only a question of speed.
//
// A batch that rows join may never end. So that rows of other keys do not wait for ever for its place, at most as many rows
// as it holds may join ahead of one that came before them.

import { DeviceLostError, OutOfMemoryError } from "./errors.ts";
import type { Batch, RowProgram } from "./row-program.ts";

export type Priority = "interactive" | "batch";

/** The scheduler takes no rows any more. */
export class SchedulerClosedError extends Error {
  override name = "SchedulerClosedError";
}

export interface ScheduleOptions<Out = unknown> {
  readonly priority?: Priority;
  readonly signal?: AbortSignal;
  /** Told what there is so far of the row, where its program makes the result piece by piece. */
  readonly onPartial?: (value: Out) => void;
}

export interface SchedulerOptions {
  /**
   * Called once: the device is lost or out of memory, or a program broke its contract (release() threw). All rows are
   * rejected with the same error and the process must end.
   */
  readonly onFatal?: (error: Error) => void;
  /** How long an idle scheduler waits for company after a batch-priority row came. Default 2 ms, at most four times. */
  readonly gatherMilliseconds?: number;
}

/** What became of the rows of one program. */
export interface ProgramStats {
  readonly rows: number;
  readonly failed: number;
  readonly batches: number;
  /** Of `rows` and `failed`, how many joined a batch that was under way. */
  readonly joined: number;
  readonly steps: number;
  /** Time in steps. */
  readonly milliseconds: number;
}

interface Row {
  readonly program: RowProgram<unknown, unknown>;
  readonly key: string;
  readonly priority: Priority;
  readonly input: unknown;
  readonly resolve: (value: unknown) => void;
  /** Rejects, and forgets the signal. */
  readonly reject: (error: unknown) => void;
  readonly onPartial: (value: unknown) => void;
  aborted: boolean;
  reason: unknown;
}

interface Running {
  readonly program: RowProgram<unknown, unknown>;
  readonly key: string;
  readonly priority: Priority;
  readonly batch: Batch<unknown, unknown>;
  /** By place in the batch, without those that have finished or were given up. */
  readonly rows: Map<number, Row>;
  /** Places given so far. */
  places: number;
  readonly dropped: Set<number>;
  /** Rows that joined ahead of one that came before them and waited for this batch's place. */
  overtook: number;
}

/** Batches under way for one program: each holds decoding state, and more at once only makes each slower. */
const mostRunning: Readonly<Record<Priority, number>> = { interactive: 4, batch: 1 };

export class RowScheduler {
  readonly #options: SchedulerOptions;
  #waiting: Row[] = [];
  /** Longest-waiting first. */
  readonly #running: Running[] = [];
  readonly #stats = new Map<RowProgram<unknown, unknown>, { -readonly [K in keyof ProgramStats]: ProgramStats[K] }>();
  #arrivals = 0;
  #loop: Promise<void> | undefined;
  #closed: Error | undefined;

  constructor(options: SchedulerOptions = {}) {
    this.#options = options;
  }

  /**
   * Queue one row.
   * @returns its result; rejects with the signal's reason when aborted, or with what the program threw.
   */
  run<In, Out>(program: RowProgram<In, Out>, input: In, options: ScheduleOptions<Out> = {}): Promise<Out> {
    return new Promise<Out>((resolve, reject) => {
      const { signal, priority = "batch", onPartial } = options;
      if (this.#closed) return reject(this.#closed);
      if (signal?.aborted) return reject(signal.reason);
      const abort = () => {
        row.aborted = true;
        row.reason = signal?.reason;
        const at = this.#waiting.indexOf(row);
        if (at < 0) return;
        this.#waiting.splice(at, 1);
        row.reject(row.reason);
      };
      const row: Row = {
        program: program as RowProgram<unknown, unknown>,
        key: program.key(input),
        priority,
        input,
        resolve: (value) => {
          signal?.removeEventListener("abort", abort);
          resolve(value as Out);
        },
        reject: (error) => {
          signal?.removeEventListener("abort", abort);
          reject(error);
        },
        onPartial: (value) => onPartial?.(value as Out),
        aborted: false,
        reason: undefined,
      };
      signal?.addEventListener("abort", abort);
      this.#waiting.push(row);
      this.#arrivals++;
      this.#loop ??= this.#work();
    });
  }

  /** Counters of one program since the start; plain JSON. */
  stats(program: RowProgram<never, unknown>): ProgramStats {
    return { ...this.#count(program as RowProgram<unknown, unknown>) };
  }

  /** Rows that wait or are under way. */
  get load(): number {
    const running = this.#running.reduce((sum, { rows }) => sum + rows.size, 0);
    return this.#waiting.length + running;
  }

  /**
   * Take no more rows. `drain` finishes those there are; `reject` gives them up at the next submit boundary.
   * Resolves when nothing is under way.
   */
  async close(how: "drain" | "reject" = "drain"): Promise<void> {
    this.#closed ??= new SchedulerClosedError("scheduler: expected to be open, got a row after close");
    if (how === "reject") this.#giveUp(new SchedulerClosedError("scheduler: closed before the row was done"));
    await this.#loop;
  }

  /** Reject what waits; what runs is given up at the next boundary. */
  #giveUp(error: Error): void {
    for (const row of this.#waiting.splice(0)) row.reject(error);
    for (const { rows } of this.#running) {
      for (const row of rows.values()) {
        if (row.aborted) continue;
        row.aborted = true;
        row.reason = error;
      }
    }
  }

  async #work(): Promise<void> {
    try {
      await this.#gather();
      for (;;) {
        this.#dropAborted();
        for (const running of this.#running) this.#join(running);
        for (const priority of ["interactive", "batch"] as const) this.#startBatches(priority);
        const running = this.#next();
        if (running) await this.#step(running);
        else if (this.#waiting.length === 0) break;
        // Messages, new rows and aborts get their turn between two submits.
        await turn();
      }
    } catch (error) {
      // A program broke its contract outside of a step; what its buffers hold is unknown.
      this.#die(error instanceof Error ? error : new Error(String(error)));
      for (const { rows } of this.#running.splice(0)) for (const row of rows.values()) row.reject(row.reason);
    }
    this.#loop = undefined;
  }

  /** Idle until now: rows of the same burst should share their first batch. */
  async #gather(): Promise<void> {
    for (let round = 0; round < 4; round++) {
      const seen = this.#arrivals;
      const urgent = this.#waiting.some((row) => row.priority === "interactive");
      const full = this.#waiting.some((row) => this.#company(row).length >= row.program.maxRows(row.key));
      if (full) return;
      if (urgent) await turn();
      else await new Promise((resolve) => setTimeout(resolve, this.#options.gatherMilliseconds ?? 2));
      if (this.#arrivals === seen) return;
    }
  }

  /** Waiting rows that may share a batch with this one, in order of arrival. */
  #company(first: Row): Row[] {
    return this.#waiting.filter(
      (row) => row.program === first.program && row.key === first.key && row.priority === first.priority,
    );
  }

  #dropAborted(): void {
    for (const running of [...this.#running]) {
      for (const [place, row] of running.rows) {
        if (!row.aborted) continue;
        running.rows.delete(place);
        running.dropped.add(place);
        row.reject(row.reason);
      }
      this.#releaseIfDone(running);
    }
  }

  /** Waiting rows of a batch's key take part in it, as many as it has room for and the others allow. */
  #join(running: Running): void {
    const { program, key, priority, batch } = running;
    const most = program.maxRows(key);
    const room = Math.min(most - running.rows.size, batch.joining?.room() ?? 0);
    if (room <= 0) return;
    const rows: Row[] = [];
    let overtakes = false;
    for (const row of this.#waiting) {
      if (row.program !== program || row.priority !== priority) continue;
      if (row.key !== key) {
        overtakes ||= !this.#hasRoom(row);
        continue;
      }
      if (rows.length === room || (overtakes && running.overtook >= most)) continue;
      rows.push(row);
      if (overtakes) running.overtook++;
    }
    this.#take(rows);
    this.#joinWith(running, rows);
  }

  #joinWith(running: Running, rows: readonly Row[]): void {
    const [first] = rows;
    if (first === undefined) return;
    try {
      running.batch.joining?.join(rows.map((row) => row.input));
    } catch (error) {
      // As with rows that start: those of other callers join all the same.
      if (rows.length > 1) for (const row of rows) this.#joinWith(running, [row]);
      else this.#fail(running.program, first, error);
      return;
    }
    for (const row of rows) running.rows.set(running.places++, row);
    this.#count(running.program).joined += rows.length;
  }

  #startBatches(priority: Priority): void {
    // Oldest first; a row whose program has no room does not hold up rows of other programs.
    for (let at = 0; at < this.#waiting.length; ) {
      const row = this.#waiting[at];
      if (row?.priority !== priority || !this.#hasRoom(row)) {
        at++;
        continue;
      }
      const rows = this.#company(row).slice(0, Math.max(1, row.program.maxRows(row.key)));
      this.#take(rows);
      this.#start(rows);
      at = 0;
    }
  }

  /** These rows wait no more. */
  #take(rows: readonly Row[]): void {
    const taken = new Set(rows);
    if (taken.size > 0) this.#waiting = this.#waiting.filter((each) => !taken.has(each));
  }

  #hasRoom({ program, priority }: Row): boolean {
    const count = this.#running.filter((each) => each.program === program && each.priority === priority).length;
    return count < mostRunning[priority];
  }

  #start(rows: Row[]): void {
    const [first] = rows;
    if (first === undefined) return;
    const { program, key, priority } = first;
    try {
      const batch = program.start(rows.map((row) => row.input));
      const places = new Map(rows.entries());
      const dropped = new Set<number>();
      this.#running.push({ program, key, priority, batch, rows: places, places: rows.length, dropped, overtook: 0 });
      this.#count(program).batches++;
    } catch (error) {
      // One row that cannot start must not fail those of other callers.
      if (rows.length > 1) for (const row of rows) this.#start([row]);
      else this.#fail(program, first, error);
    }
  }

  #next(): Running | undefined {
    return this.#running.find((each) => each.priority === "interactive") ?? this.#running[0];
  }

  async #step(running: Running): Promise<void> {
    const { program, batch, rows, dropped } = running;
    const counters = this.#count(program);
    const started = performance.now();
    try {
      const finished = await batch.step(dropped, (place, value) => rows.get(place)?.onPartial(value));
      for (const result of finished) {
        const row = rows.get(result.row);
        if (row === undefined) {
          if (dropped.has(result.row)) continue;
          throw new Error(`${program.name}: expected each row to finish once, got row ${result.row} again`);
        }
        rows.delete(result.row);
        if (row.aborted) row.reject(row.reason);
        else if ("error" in result) this.#fail(program, row, result.error);
        else {
          counters.rows++;
          row.resolve(result.value);
        }
      }
    } catch (error) {
      for (const row of rows.values()) this.#fail(program, row, error);
      rows.clear();
      if (error instanceof DeviceLostError || error instanceof OutOfMemoryError) this.#die(error);
    } finally {
      counters.steps++;
      counters.milliseconds += performance.now() - started;
    }
    const at = this.#running.indexOf(running);
    if (at >= 0) this.#running.push(...this.#running.splice(at, 1));
    this.#releaseIfDone(running);
  }

  #releaseIfDone(running: Running): void {
    const at = this.#running.indexOf(running);
    if (at < 0 || running.rows.size > 0) return;
    this.#running.splice(at, 1);
    running.batch.release();
  }

  /** The device is gone: nothing that waits can be done here. */
  #die(error: Error): void {
    if (this.#closed === error) return;
    this.#closed = error;
    this.#giveUp(error);
    this.#options.onFatal?.(error);
  }

  #fail(program: RowProgram<unknown, unknown>, row: Row, error: unknown): void {
    this.#count(program).failed++;
    row.reject(row.aborted ? row.reason : error);
  }

  #count(program: RowProgram<unknown, unknown>): { -readonly [K in keyof ProgramStats]: ProgramStats[K] } {
    let counters = this.#stats.get(program);
    if (counters === undefined) {
      counters = { rows: 0, failed: 0, batches: 0, joined: 0, steps: 0, milliseconds: 0 };
      this.#stats.set(program, counters);
    }
    return counters;
  }
}

/** One turn of the event loop. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
