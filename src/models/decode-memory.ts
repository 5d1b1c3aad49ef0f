// The memory of the items of one batch: its buffers, and what says where each row of each item lies.

import type { Tensor } from "../gpu/tensor.ts";
import { view } from "../gpu/view.ts";
import { none } from "../kernels/decode-state.ts";
import { type GenerateBuckets, type GenerateRow, type ItemRows, itemRows, promptLength } from "./generate-row.ts";
import type { LanguageModel, MemoryForm, MemoryMaking, MemoryRows } from "./language-model.ts";

/** A row, and the item of the machine that it is. */
export type Placed = readonly [item: number, row: GenerateRow];

/** Words for a tensor from its start on. */
export type Words = readonly [tensor: Tensor, words: Uint32Array];

export interface MemoryTensors {
  readonly form: MemoryForm;
  /** Rows of memory of an item. */
  readonly rows: number;
  /** For the rows of prompts, room for all items. */
  readonly making: MemoryMaking;
  /** For the rows of a step; its cache and table are those of `making`. */
  readonly reading: MemoryRows;
}

/** @param cacheOf caches of so many slots, one per layer @returns null for a decoder-only model */
export function memoryTensors(
  model: LanguageModel,
  items: number,
  buckets: GenerateBuckets,
  alloc: (name: string, shape: readonly number[]) => Tensor,
  cacheOf: (name: string, slots: number) => MemoryRows["cache"],
): MemoryTensors | null {
  if (!model.memory) return null;
  const { sequence, encoder, memory } = itemRows(model, buckets);
  const shared = {
    cache: cacheOf("memory ", items * memory),
    table: alloc("memory table", [items, memory]),
  };
  return {
    form: model.memory,
    rows: memory,
    making: {
      ...shared,
      cursors: alloc("memory cursors of prompts", [items * sequence, 4]),
      slots: alloc("memory slots", [items * memory, 4]),
      lengths: alloc("memory lengths", [items]),
      ...(model.memory.encoder && { text: alloc("encoder text", [items * encoder, 4]) }),
    },
    reading: { ...shared, cursors: alloc("memory cursors", [items * buckets.beams, 4]) },
  };
}

/** What the prompts of `count` rows are read with, of so many rows each. */
export function makingOf({ making }: MemoryTensors, count: number, sizes: ItemRows): MemoryMaking {
  const { cursors, slots, lengths, text } = making;
  return {
    ...making,
    cursors: view(cursors, [count * sizes.sequence, 4]),
    slots: view(slots, [count * sizes.memory, 4]),
    lengths: view(lengths, [count]),
    ...(text && { text: view(text, [count * sizes.encoder, 4]) }),
  };
}

/** What `makingOf` has to hold for these rows; places behind them read and write nothing. */
export function makingWords(
  { form, making, rows }: MemoryTensors,
  model: LanguageModel,
  count: number,
  sizes: ItemRows,
  placed: readonly Placed[],
): Words[] {
  const slots = wordsOf(count * sizes.memory);
  // An item without a row counts one, which is padding.
  const lengths = new Uint32Array(count).fill(1);
  const cursors = wordsOf(count * sizes.sequence);
  const text = wordsOf(count * sizes.encoder);
  for (const [i, [item, row]] of placed.entries()) {
    const length = form.rows(row.textIds.length);
    lengths[i] = length;
    for (let m = 0; m < sizes.memory; m++) slots[4 * (i * sizes.memory + m) + 2] = item * rows + m;
    const own = Math.min(sizes.sequence, promptLength(model, row));
    for (let t = 0; t < own; t++) cursors.set([none, length - 1, none, item], 4 * (i * sizes.sequence + t));
    const ids = sizes.encoder > 0 ? row.textIds : [];
    for (const [t, id] of ids.entries()) text.set([id, t, none, i], 4 * (i * sizes.encoder + t));
  }
  const words: Words[] = [
    [making.slots, slots],
    [making.lengths, lengths],
    [making.cursors, cursors],
  ];
  return making.text ? [...words, [making.text, text]] : words;
}

/** The cursors of an item's rows in a step. */
export function readingCursors({ form }: MemoryTensors, beams: number, [item, row]: Placed): number[] {
  const last = form.rows(row.textIds.length) - 1;
  return Array.from({ length: beams }, () => [none, last, none, item]).flat();
}

/** Cursors of rows that read and write nothing; as in those of a sequence, a padding row has an item inside the table. */
export function wordsOf(rows: number): Uint32Array {
  return new Uint32Array(4 * rows).map((_, i) => (i % 4 === 3 ? 0 : none));
}
