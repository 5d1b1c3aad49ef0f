// What lives on the GPU between the steps of a batch of sequences, shared by the kernels that decode.

import type { Tensor } from "../gpu/tensor.ts";

/** In a cursor: no token (image slot, padding), no position or slot (padding). As a token: no logit was a number. */
export const none = 0xffffffff;

/** Columns of `settings` before the divisors. */
export const settingsHead = 4;
/** Columns of `ended` before the ids. */
export const endedHead = 3;
/**
 * Columns of `sampling` (items, 8) u32, beside the state where ids are drawn: temperature f32, k of top-k (0: all),
 * p of top-p f32 (1: all), seed low and high word, item low and high word, unused.
 */
export const samplingWidth = 8;

/** The size of an array for `count` elements in a shader: few sizes, so that few shaders are compiled. */
export function room(count: number, least: number): number {
  return Math.max(least, 2 ** Math.ceil(Math.log2(count)));
}

/**
 * A row is (item r / beams, beam r % beams). All u32; f32 values as their bits.
 *
 * settings  (items, 4 + newRows)      maxNew, minNew, repetition penalty f32, prompt length, then f32 n^lengthPenalty
 *                                     for n = 1 .. newRows
 * stopIds   (at least 1)              ids that end a sequence, `stopCount` of them
 * progress  (items, 2 + beams)        ids generated, done, running scores f32
 * choice    (rows, 2)                 token, parent beam of the last step
 * cursors   (rows, 4)                 token, position, cache slot, sequence of the next step
 * table     (rows, positions)         cache slot of each position
 * seen      (rows, ceil(vocab / 32))  bits of the ids in the prompt and since
 * history   (rows, newRows)           ids generated
 * ended     (rows, 3 + newRows)       real end, score f32 (greedy and sampled: of the last id), length, ids; an item's best first
 */
export interface DecodeState {
  readonly items: number;
  readonly beams: number;
  readonly newRows: number;
  readonly vocabulary: number;
  readonly stopCount: number;
  /** Cache slots of an item's prompt. Behind them are newRows of each of its beams, then come those of the next item. */
  readonly promptSlots: number;
  readonly settings: Tensor;
  readonly stopIds: Tensor;
  readonly progress: Tensor;
  readonly choice: Tensor;
  readonly cursors: Tensor;
  readonly table: Tensor;
  readonly seen: Tensor;
  readonly history: Tensor;
  readonly ended: Tensor;
}
