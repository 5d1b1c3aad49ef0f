// What is written into a machine's buffers when an item gets a row, and when it has none any more.

import type { Tensor } from "../gpu/tensor.ts";
import { type DecodeState, endedHead, none } from "../kernels/decode-state.ts";
import { type MemoryTensors, type Placed, readingCursors, type Words, wordsOf } from "./decode-memory.ts";
import { firstIds, type GenerateRow, type ItemRows, positionOfRow, promptLength } from "./generate-row.ts";
import type { LanguageModel } from "./language-model.ts";
import { samplingWords } from "./sampling-words.ts";

/** How prompts are read together: so many of them, of so many rows each. */
export interface Reading {
  readonly count: number;
  readonly sizes: ItemRows;
  /** To the last id, with a choice behind it. */
  readonly isWhole: boolean;
  readonly keepsMemory: boolean;
}

/** What a row has for itself, beside its prompt and its cache. */
export interface StateTensors {
  readonly state: DecodeState;
  readonly memory: MemoryTensors | null;
  /** Where ids are drawn. */
  readonly sampling: Tensor | null;
  /** Where ids are given. */
  readonly givenIds: Tensor | null;
  /** Where sequences have contexts. */
  readonly contexts: Tensor | null;
}

/** What a beam that does not exist yet scores, and an end that nobody reached. */
const hopeless = -1e9;

/** The cache slot of a row of an item's prompt. */
function promptSlot({ promptSlots, beams, newRows }: DecodeState, item: number, row: number): number {
  return item * (promptSlots + beams * newRows) + row;
}

/** Where the rows of prompts stand that are read together: each at its place in its item's sequence and cache. */
export function promptWords(
  model: LanguageModel,
  state: DecodeState,
  { promptCursors, lastRows }: { readonly promptCursors: Tensor; readonly lastRows: Tensor },
  { count, sizes, isWhole }: Reading,
  placed: readonly Placed[],
): Words[] {
  const cursors = wordsOf(count * sizes.sequence);
  const last = new Uint32Array(count).map((_, i) => i * sizes.sequence);
  for (const [i, [item, row]] of placed.entries()) {
    const length = promptLength(model, row);
    const ids = firstIds(model, row);
    for (let t = 0; t < (isWhole ? length : length - 1); t++) {
      const token = t < model.queries ? none : (ids[t - model.queries] ?? none);
      const cursor = [token, positionOfRow(model, row, t), promptSlot(state, item, t), item * state.beams];
      cursors.set(cursor, 4 * (i * sizes.sequence + t));
    }
    last[i] = i * sizes.sequence + length - 1;
  }
  return [
    [promptCursors, cursors],
    [lastRows, last],
  ];
}

/** What an item has without a row. */
export function emptyWords({ state, memory }: StateTensors): Words[] {
  const { beams, progress, cursors } = state;
  return [
    [progress, Uint32Array.of(0, 1, ...runningAtStart(beams))],
    [cursors, new Uint32Array(beams * 4).fill(none)],
    ...(memory ? [[memory.reading.cursors, wordsOf(beams)] as const] : []),
  ];
}

/** What an item has before the first step of its row. */
export function itemWords(
  model: LanguageModel,
  { state, memory, sampling, givenIds, contexts }: StateTensors,
  placed: Placed,
): Words[] {
  const { beams, newRows } = state;
  const [item, row] = placed;
  const length = promptLength(model, row);
  const ofBeams = (tensor: Tensor, words: Uint32Array): Words => {
    const all = new Uint32Array(beams * words.length);
    for (let beam = 0; beam < beams; beam++) all.set(words, beam * words.length);
    return [tensor, all];
  };
  const width = (tensor: Tensor) => tensor.shape[1] ?? 0;
  const table = new Uint32Array(width(state.table));
  for (let t = 0; t < length; t++) table[positionOfRow(model, row, t)] = promptSlot(state, item, t);
  const seen = new Uint32Array(width(state.seen));
  for (const id of seenBefore(model, row)) seen[id >> 5] = (seen[id >> 5] ?? 0) | (1 << (id & 31));
  const running = givenIds ? new Array<number>(beams).fill(0) : runningAtStart(beams);
  const words: Words[] = [
    [state.settings, Uint32Array.from(settingsOf(row, length, newRows))],
    [state.progress, Uint32Array.of(0, 0, ...running)],
    [state.cursors, givenIds ? new Uint32Array(beams * 4).fill(none) : lastIdCursors(model, state, placed)],
    ofBeams(state.table, table),
    ofBeams(state.seen, seen),
    ofBeams(state.ended, new Uint32Array(endedHead + newRows).with(1, floatBits(hopeless))),
  ];
  if (memory) words.push([memory.reading.cursors, Uint32Array.from(readingCursors(memory, beams, placed))]);
  if (sampling) words.push([sampling, samplingWords(row)]);
  if (contexts) words.push(ofBeams(contexts, Uint32Array.of(length - (model.idsBehindContext ?? 0))));
  if (givenIds) {
    const ids = new Uint32Array(beams * newRows).fill(none);
    for (const [beam, each] of (row.given ?? []).entries()) ids.set(each, beam * newRows);
    words.push([givenIds, ids]);
  }
  return words;
}

/** The last id of a prompt, as all beams read it; the first of them keeps its key and value. */
function lastIdCursors(model: LanguageModel, state: DecodeState, [item, row]: Placed): Uint32Array {
  const last = promptLength(model, row) - 1;
  const token = firstIds(model, row).at(-1) ?? none;
  const cursors = Array.from({ length: state.beams }, (_, beam) => {
    const slot = beam === 0 ? promptSlot(state, item, last) : none;
    return [token, positionOfRow(model, row, last), slot, item * state.beams + beam];
  });
  return Uint32Array.from(cursors.flat());
}

/** The ids that count as seen before the first step. */
function seenBefore(model: LanguageModel, row: GenerateRow): readonly number[] {
  if (row.generation.repetitionPenaltyScope === "new") return [];
  const ids = firstIds(model, row);
  return model.imageId === null ? ids : [model.imageId, ...ids];
}

/** A row of `settings`: the divisors are powers in f64, rounded once to f32. */
function settingsOf({ generation }: GenerateRow, length: number, newRows: number): number[] {
  const { maxNewTokens, minNewTokens, repetitionPenalty, lengthPenalty } = generation;
  const divisors = Array.from({ length: newRows }, (_, i) => floatBits((i + 1) ** lengthPenalty));
  return [maxNewTokens, minNewTokens, floatBits(repetitionPenalty), length, ...divisors];
}

/** Only beam 0 exists at first. */
function runningAtStart(beams: number): number[] {
  return Array.from({ length: beams }, (_, beam) => floatBits(beam === 0 ? 0 : hopeless));
}

/** The bits of a number as f32. */
function floatBits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0] ?? 0;
}
