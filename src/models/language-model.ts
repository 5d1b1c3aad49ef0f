// What generate.ts needs of a language model: how its prompt is read and how one more token is.

import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { LayerCache } from "../kernels/append-cache.ts";

/** Rows to run through the model, each at its place in its sequence. */
export interface SequenceRows {
  /** (rows, 4) u32 of (token, position, cache slot, sequence); see kernels/decode-state.ts for what may be missing. */
  readonly cursors: Tensor;
  /** (sequences, positions) u32: the cache slot of each position. */
  readonly table: Tensor;
  /** One per layer. */
  readonly cache: readonly LayerCache[];
}

/** The prompts of some items: `queries` image slots each, then text, padded on the right to equal lengths. */
export interface PromptRows extends SequenceRows {
  /** (items, at least queries * width) f32 or f16 */
  readonly prompt: Tensor;
  /** (items) u32: the last row of each item that is no padding. */
  readonly lastRows: Tensor;
}

/** A decoder-only language model with its weights on the GPU. */
export interface LanguageModel {
  readonly vocabulary: number;
  readonly width: number;
  /** The widest activation inside, for the memory plan. */
  readonly widest: number;
  /** Positions that the model has; image slots, text and new ids together. */
  readonly maxPositions: number;
  /** Image slots in front of the text. */
  readonly queries: number;
  /** The id that stands for an image slot in a sequence of ids. */
  readonly imageId: number;
  /** Ids that end a sequence; may be none. */
  readonly stopIds: readonly number[];
  readonly cache: { readonly layers: number; readonly width: number; readonly type: "f32" | "f16" };
  /** -> logits after each item's prompt: (items, vocabulary) f32 */
  readPrompts(k: Recorder, rows: PromptRows): Tensor;
  /** -> logits after each row: (rows, vocabulary) f32 */
  readTokens(k: Recorder, rows: SequenceRows): Tensor;
}
