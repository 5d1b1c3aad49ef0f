// What generate.ts needs of a language model: how its prompt is read and how one more token is.

import { ShapeError } from "../gpu/errors.ts";
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

/** A part of a forward pass that may be a submit of its own. */
export interface ModelPart<Rows> {
  /** Floating-point operations, about, for so many rows of so many items. */
  cost(rows: number, items: number): number;
  /** @param x what the part before returned; null for the first. */
  run(k: Recorder, x: Tensor | null, rows: Rows): Tensor;
}

/** All parts of a forward pass, one after another. */
export function runParts<Rows>(
  k: Recorder,
  parts: readonly ModelPart<Rows>[],
  rows: Rows,
  x: Tensor | null = null,
): Tensor {
  const last = parts.reduce((given, part) => part.run(k, given, rows), x);
  if (last === null) throw new ShapeError("language model: expected parts that return a tensor, got none");
  return last;
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
  /** Reads prompts; the last part gives the logits after each item's prompt: (items, vocabulary) f32 */
  readonly promptParts: readonly ModelPart<PromptRows>[];
  /** Reads one token per row; the last part gives the logits after each row: (rows, vocabulary) f32 */
  readonly tokenParts: readonly ModelPart<SequenceRows>[];
  /** All of promptParts. */
  readPrompts(k: Recorder, rows: PromptRows): Tensor;
  /** All of tokenParts. */
  readTokens(k: Recorder, rows: SequenceRows): Tensor;
}
