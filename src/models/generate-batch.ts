// Rows of generate that are under way together. A row that is done leaves its item of the machine, and the next row takes it
// at the next submit, while the others go on: continuous batching, after Yu et al., "Orca: A Distributed Serving System for
// Transformer-Based Generative Models" (2022).
//
//   seats     who sits at which item; waiting rows are seated when no step is half done
//   pending   what is left of a prompt or of a step that takes several submits
//   flights   submits whose results are not there yet, oldest first, each with who sat where when it was made

import type { Gpu } from "../gpu/device.ts";
import type { Recording } from "../gpu/recording.ts";
import type { Lease } from "../gpu/recording-cache.ts";
import type { Batch, RowResult } from "../gpu/row-program.ts";
import { type DecodeState, endedHead } from "../kernels/decode-state.ts";
import type { DecodeMachine } from "./decode-machine.ts";
import { GenerationError } from "./errors.ts";
import type { GenerateRow } from "./generate-row.ts";

/** Steps of the next submit, given how many it may hold and what the last step took (undefined: not known). */
export type StepPlan = (left: number, stepMilliseconds: number | undefined) => number;

export interface BatchPlan {
  readonly vocabulary: number;
  /** Rows that the batch may ever hold at once. */
  readonly mostRows: number;
  readonly steps: StepPlan;
  /** Submits under way at once. */
  readonly inFlight: number;
  /** @param rows how many it has items for at least */
  machine(rows: number): Promise<Lease<DecodeMachine>>;
  /** @throws GenerationError what keeps a row from being a row of this batch */
  check(row: GenerateRow): void;
}

interface Seat {
  readonly place: number;
  readonly row: GenerateRow;
  /** Steps of it that were submitted, or are about to be. */
  steps: number;
}

interface StepResults {
  readonly progress: Uint32Array;
  readonly ended: Uint32Array;
}

interface Flight {
  readonly state: DecodeState;
  readonly seats: readonly (Seat | undefined)[];
  /** Whole steps; 0 for a part of one, or of a prompt. */
  readonly steps: number;
  readonly started: number;
  /** Null where no step ends with it. */
  readonly results: Promise<StepResults | null>;
}

/** What one submit replays; `ends`: a step ends with it. */
interface Work {
  readonly lists: readonly Recording[];
  readonly ends: boolean;
  readonly steps: number;
}

export function generateBatch(gpu: Gpu, plan: BatchPlan, rows: readonly GenerateRow[]): Batch<number[], GenerateRow> {
  const batch = new GenerateBatch(gpu, plan);
  batch.join(rows);
  return {
    step: (dropped, onPartial) => batch.step(dropped, onPartial),
    joining: { room: () => batch.room(), join: (more) => batch.join(more) },
    release: () => batch.release(),
  };
}

class GenerateBatch {
  readonly #gpu: Gpu;
  readonly #plan: BatchPlan;
  /** As many as the machine has items. */
  readonly #seats: (Seat | undefined)[] = [];
  /** Items whose row has left and which nobody has taken since. */
  readonly #left = new Set<number>();
  #waiting: Seat[] = [];
  #pending: Work[] = [];
  #flights: Flight[] = [];
  #places = 0;
  #lease: Lease<DecodeMachine> | undefined;
  #stepMilliseconds: number | undefined;
  #lastEnd = 0;

  constructor(gpu: Gpu, plan: BatchPlan) {
    this.#gpu = gpu;
    this.#plan = plan;
  }

  room(): number {
    return this.#plan.mostRows - this.#sitting().length - this.#waiting.length;
  }

  join(rows: readonly GenerateRow[]): void {
    for (const row of rows) this.#plan.check(row);
    for (const row of rows) this.#waiting.push({ place: this.#places++, row, steps: 0 });
  }

  async step(
    dropped: ReadonlySet<number>,
    onPartial: (row: number, ids: number[]) => void = () => {},
  ): Promise<RowResult<number[]>[]> {
    this.#waiting = this.#waiting.filter(({ place }) => !dropped.has(place));
    for (const [item, seat] of this.#seats.entries()) if (seat && dropped.has(seat.place)) this.#leave(item);
    if (this.#waiting.length === 0 && this.#sitting().length === 0) return [];
    while (this.#flights.length < this.#plan.inFlight) {
      const machine = await this.#machine();
      const work = await this.#nextWork(machine);
      if (work === undefined) break;
      this.#flights.push(this.#submit(machine, work));
    }
    const [flight, ...behind] = this.#flights;
    if (flight === undefined) throw new GenerationError("generate: expected rows that end, got one past its last step");
    this.#flights = behind;
    const results = await flight.results;
    const ended = performance.now();
    if (flight.steps > 0) this.#stepMilliseconds = (ended - Math.max(flight.started, this.#lastEnd)) / flight.steps;
    this.#lastEnd = ended;
    return results === null ? [] : this.#finish(flight, results, onPartial);
  }

  release(): void {
    this.#lease?.release();
  }

  #sitting(): Seat[] {
    return this.#seats.filter((seat) => seat !== undefined);
  }

  /** With items for all rows, those that wait too; between two steps a larger one takes over where it is needed. */
  async #machine(): Promise<DecodeMachine> {
    const rows = this.#sitting().length + this.#waiting.length;
    const old = this.#lease;
    if (old !== undefined && (rows <= old.value.items || this.#pending.length > 0)) return old.value;
    const lease = await this.#plan.machine(rows);
    this.#lease = lease;
    try {
      await lease.value.clear();
      if (old !== undefined) lease.value.takeOver(old.value);
    } finally {
      old?.release();
    }
    while (this.#seats.length < lease.value.items) this.#seats.push(undefined);
    return lease.value;
  }

  #leave(item: number): void {
    this.#seats[item] = undefined;
    this.#left.add(item);
  }

  /** What to submit next; undefined: nothing before some of what is under way has ended. */
  async #nextWork(machine: DecodeMachine): Promise<Work | undefined> {
    if (this.#pending.length === 0) this.#pending = [...(await this.#seat(machine)), ...this.#nextSteps(machine)];
    return this.#pending.shift();
  }

  /** Waiting rows take free items. @returns the reading of their prompts */
  async #seat(machine: DecodeMachine): Promise<Work[]> {
    const placed: [number, GenerateRow][] = [];
    for (const [item, seat] of this.#seats.entries()) {
      const next = seat === undefined ? this.#waiting.shift() : undefined;
      if (next === undefined) continue;
      this.#seats[item] = next;
      this.#left.delete(item);
      placed.push([item, next.row]);
    }
    for (const item of this.#left) await machine.stop(item);
    this.#left.clear();
    if (placed.length === 0) return [];
    return (await machine.load(placed)).map((list) => ({ lists: [list], ends: false, steps: 0 }));
  }

  #nextSteps({ next }: DecodeMachine): Work[] {
    const sitting = this.#sitting();
    const left = sitting.map(({ row, steps }) => row.generation.maxNewTokens - steps).filter((steps) => steps > 0);
    if (left.length === 0) return [];
    // Where another row may wait for a place, no further than to the first that is certain to become free.
    const most = this.room() === 0 ? Math.min(...left) : Math.max(...left);
    const isWhole = next.length === 1;
    const count = isWhole ? this.#plan.steps(most, this.#stepMilliseconds) : 1;
    for (const seat of sitting) seat.steps += count;
    if (isWhole) return [{ lists: new Array<Recording>(count).fill(next[0] as Recording), ends: true, steps: count }];
    return next.map((list, i) => ({ lists: [list], ends: i === next.length - 1, steps: 0 }));
  }

  #submit({ state }: DecodeMachine, { lists, ends, steps }: Work): Flight {
    const started = performance.now();
    const submitted = this.#gpu.submit(lists, { reads: ends ? [state.progress, state.ended] : [] });
    const results = submitted.then(([progress, ended]) =>
      progress && ended ? { progress: new Uint32Array(progress), ended: new Uint32Array(ended) } : null,
    );
    // A batch that is given up awaits none of them any more.
    results.catch(() => {});
    return { state, seats: [...this.#seats], steps, started, results };
  }

  /** Let rows that are done leave; tell of the others what they have, unless beams still compete. */
  #finish(
    { state, seats }: Flight,
    { progress, ended }: StepResults,
    onPartial: (row: number, ids: number[]) => void,
  ): RowResult<number[]>[] {
    const results: RowResult<number[]>[] = [];
    for (const [item, seat] of seats.entries()) {
      // Who sits there now may have come after this was submitted.
      if (seat === undefined || this.#seats[item] !== seat) continue;
      const isDone = progress[item * (2 + state.beams) + 1] !== 0;
      if (!isDone && state.beams > 1) continue;
      const record = item * state.beams * (endedHead + state.newRows);
      const ids = [...ended.subarray(record + endedHead, record + endedHead + (ended[record + 2] ?? 0))];
      const { place } = seat;
      if (!isDone) {
        onPartial(place, ids);
        continue;
      }
      this.#leave(item);
      if (ended[record] !== 1 || ids.some((id) => id >= this.#plan.vocabulary)) {
        const step = progress[item * (2 + state.beams)];
        const error = new GenerationError(
          `generate: expected finite logits, got NaN at step ${step}; the weights may be broken, ` +
            "or too large for their type: try --dtype f32",
        );
        results.push({ row: place, error });
      } else {
        results.push({ row: place, value: ids });
      }
    }
    return results;
  }
}
