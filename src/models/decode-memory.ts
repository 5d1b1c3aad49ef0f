// The memory of the items of one batch: its buffers, and what says where each row of each item lies.

import type { Tensor } from "../gpu/tensor.ts";
import { none } from "../kernels/decode-state.ts";
import { type GenerateBuckets, type GenerateRow, itemRows, promptLength } from "./generate-row.ts";
import type { LanguageModel, MemoryForm, MemoryMaking, MemoryRows } from "./language-model.ts";

export interface MemoryTensors {
  readonly form: MemoryForm;
  /** For the rows of prompts. */
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

/** What `load` writes into them for these rows; items behind the rows read nothing. */
export function memoryWords(
  { form, making, reading }: MemoryTensors,
  model: LanguageModel,
  given: readonly GenerateRow[],
): [Tensor, Uint32Array][] {
  const { table, slots, lengths, text } = making;
  const items = lengths.shape[0] ?? 0;
  const counts = given.map(({ textIds }) => form.rows(textIds.length));
  const perItem = (tensor: Tensor) => (tensor.shape[0] ?? 0) / items;
  const whole = (tensor: Tensor, rowsOf: (row: GenerateRow) => number) =>
    cursorsOf(tensor, perItem(tensor), given, (row, item) => {
      return Array.from({ length: rowsOf(row) }, () => [none, (counts[item] ?? 0) - 1, none]);
    });
  const words: [Tensor, Uint32Array][] = [
    [table, wordsFor(table).map((_, i) => i)],
    [slots, wordsFor(slots).map((_, i) => (i % 4 === 2 ? Math.floor(i / 4) : none))],
    // An item without a row counts one, which is padding.
    [lengths, wordsFor(lengths).map((_, item) => Math.max(1, counts[item] ?? 0))],
    [making.cursors, whole(making.cursors, (row) => promptLength(model, row))],
    [reading.cursors, whole(reading.cursors, () => perItem(reading.cursors))],
  ];
  if (text === undefined) return words;
  return [
    ...words,
    [text, cursorsOf(text, perItem(text), given, ({ textIds }) => textIds.map((id, t) => [id, t, none]))],
  ];
}

/** Cursors of the rows of each item, all but their last word; padding has no token, no position and no slot. */
function cursorsOf(
  tensor: Tensor,
  perItem: number,
  given: readonly GenerateRow[],
  rowsOf: (row: GenerateRow, item: number) => readonly (readonly number[])[],
): Uint32Array {
  // As in the cursors of a sequence, a padding row has an item inside the table.
  const words = wordsFor(tensor).map((_, i) => (i % 4 === 3 ? 0 : none));
  for (const [item, row] of given.entries()) {
    for (const [i, cursor] of rowsOf(row, item).entries()) words.set([...cursor, item], 4 * (item * perItem + i));
  }
  return words;
}

/** Words for all of a tensor, zero. */
export function wordsFor(tensor: Tensor): Uint32Array {
  return new Uint32Array(tensor.shape.reduce((product, size) => product * size, 1));
}
