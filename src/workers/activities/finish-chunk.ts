// How a chunk's last activity ends it: results of items, committed group by group and then as one object.
//
//     chunks/000012/generate.01003.jsonl   round 1, group 3: items 48 … 63 of the chunk, those that had a prompt
//     chunks/000012/generate.jsonl         the whole chunk in order; its digest is what the job knows
//
// Vectors are objects of their own, one for each committed group, named by what is in them; its lines say where each is.

import { commitResults, countsOf, type ResultLine, readResults, stageObjectName } from "../../jobs/results.ts";
import { type ObjectStore, openStore, sha256 } from "../../jobs/store.ts";
import type { ItemResult } from "../../messages/item-result.ts";
import type { ChunkIdentity, Committed, GenerateOutcome, Missing, Stage } from "../../messages/job.ts";
import type { ImageStages, Vectors } from "../../stages.ts";
import { StageRun } from "./encode.ts";
import { itemsOfRound, type Placed } from "./prompt-lines.ts";
import type { Serving } from "./serving.ts";

/** Items whose results are committed together: what a killed worker loses at most, per group under way. */
const groupSize = 16;

/** Room for the groups of one round in a part's number. */
const groupsInRound = 1000;

/** What came of an item: its result, with the bytes of its vectors where it has some, or why it must be encoded again. */
export type Found = { readonly result: ItemResult; readonly vectors?: Vectors } | { readonly missing: keyof Missing };

/** Whose work it is for the timings, and by which name results are committed. */
export interface Finishing {
  readonly stage: Stage;
  readonly object: "generate" | "compare";
}

/**
 * Do `work` for every item that has no result by an earlier try or round.
 * @returns the chunk's result when nothing is missing
 */
export async function finishChunk(
  serving: Serving<ImageStages>,
  input: ChunkIdentity & { readonly round: number },
  { stage, object }: Finishing,
  work: (placed: Placed, run: StageRun, signal: AbortSignal) => Promise<Found>,
): Promise<GenerateOutcome> {
  const items = await itemsOfRound(input, null);
  const groups = new Groups(openStore(input.folder), input, object, items);
  await groups.resume();
  const rest = items.filter(({ position }) => !groups.has(position));
  const run = new StageRun(serving, stage, items.length);
  for (let done = rest.length; done < items.length; done += 1) run.count("reused");
  const missing = { absent: [] as number[], damaged: [] as number[] };

  await run.each(rest, async (placed, signal) => {
    const { position } = placed;
    const found = await work(placed, run, signal);
    if ("missing" in found) missing[found.missing].push(position);
    else groups.add(position, { result: found.result, index: placed.item.index, maker: serving.maker }, found.vectors);
    await groups.settle(position);
  });

  const sorted = { absent: missing.absent.sort(ascending), damaged: missing.damaged.sort(ascending) };
  const isWhole = sorted.absent.length + sorted.damaged.length === 0;
  return { ...run.work(), missing: sorted, result: isWhole ? await groups.commitAll() : null };
}

/** The lines of a chunk by group: taken back from earlier tries and rounds, committed when a group is settled. */
class Groups {
  readonly #store: ObjectStore;
  readonly #chunk: ChunkIdentity & { readonly round: number };
  readonly #object: Finishing["object"];
  readonly #lines = new Map<number, ResultLine>();
  /** Of lines that are not committed yet. */
  readonly #vectors = new Map<number, Vectors>();
  /** By group: positions without an answer yet, and whether a line is new since the last commit. */
  readonly #open = new Map<number, { waiting: number; fresh: number[] }>();
  readonly #count: number;

  constructor(
    store: ObjectStore,
    chunk: ChunkIdentity & { readonly round: number },
    object: Finishing["object"],
    items: readonly Placed[],
  ) {
    this.#store = store;
    this.#chunk = chunk;
    this.#object = object;
    this.#count = items.length;
  }

  has(position: number): boolean {
    return this.#lines.has(position);
  }

  /** Take in what earlier rounds, and earlier tries of this one, have committed. */
  async resume(): Promise<void> {
    const groups = Math.ceil(this.#count / groupSize);
    for (let round = 0; round <= this.#chunk.round; round += 1) {
      for (let group = 0; group < groups; group += 1) {
        const part = await this.#store.find(this.#partName(round, group));
        if (part !== null) await this.#adopt(part);
      }
    }
    for (let group = 0; group < groups; group += 1) {
      const size = Math.min(groupSize, this.#count - group * groupSize);
      const known = Array.from({ length: size }, (_, i) => group * groupSize + i).filter((position) =>
        this.has(position),
      );
      this.#open.set(group, { waiting: size - known.length, fresh: [] });
    }
  }

  add(position: number, line: ResultLine, vectors?: Vectors): void {
    this.#lines.set(position, line);
    if (vectors !== undefined) this.#vectors.set(position, vectors);
    this.#groupOf(position).fresh.push(position);
  }

  /** An item has its answer, a line or none; the last of its group commits the group's new lines. */
  async settle(position: number): Promise<void> {
    const open = this.#groupOf(position);
    open.waiting -= 1;
    if (open.waiting > 0 || open.fresh.length === 0) return;
    const name = this.#partName(this.#chunk.round, Math.floor(position / groupSize));
    await this.#placeVectors(name, open.fresh.sort(ascending));
    const lines = open.fresh.flatMap((fresh) => this.#lines.get(fresh) ?? []);
    // Whoever committed first decides: its lines replace ours.
    await this.#adopt(await commitResults(this.#store, name, lines));
  }

  /** The chunk's result, first writer wins. */
  async commitAll(): Promise<GenerateOutcome["result"]> {
    const lines = [...this.#lines].sort(([a], [b]) => a - b).map(([, line]) => line);
    const name = stageObjectName(this.#chunk.chunk, this.#object);
    const committed = await commitResults(this.#store, name, lines);
    return { ...committed, ...countsOf(await readResults(this.#store, committed)) };
  }

  /** Commit the vectors at these positions as one object, and let their lines say where they are. */
  async #placeVectors(part: string, positions: readonly number[]): Promise<void> {
    const rows = positions.flatMap((position) => {
      const [line, vectors] = [this.#lines.get(position), this.#vectors.get(position)];
      this.#vectors.delete(position);
      return line === undefined || vectors === undefined ? [] : [{ position, line, vectors }];
    });
    if (rows.length === 0) return;
    const bytes = Buffer.concat(rows.map(({ vectors }) => vectors.bytes));
    const object = await this.#store.commit(part.replace(/jsonl$/, `${sha256(bytes).slice(0, 12)}.bin`), bytes);
    for (const [row, { position, line, vectors }] of rows.entries()) {
      const { result } = line;
      if (!("vectors" in result)) continue;
      const placed = { ...result.vectors, at: { object, row, shape: vectors.shape } };
      this.#lines.set(position, { ...line, result: { ...result, vectors: placed } });
    }
  }

  async #adopt(part: Committed): Promise<void> {
    for (const line of await readResults(this.#store, part)) {
      this.#lines.set(line.index - this.#chunk.first, line);
    }
  }

  #partName(round: number, group: number): string {
    return stageObjectName(this.#chunk.chunk, this.#object, round * groupsInRound + group);
  }

  #groupOf(position: number): { waiting: number; fresh: number[] } {
    const group = Math.floor(position / groupSize);
    const open = this.#open.get(group) ?? { waiting: 0, fresh: [] };
    this.#open.set(group, open);
    return open;
  }
}

function ascending(a: number, b: number): number {
  return a - b;
}
