// What generate.ts needs of a language model: how its prompt is read and how one more token is.
//
// A decoder-only model reads one sequence: image slots, text, new ids. An encoder-decoder model has a memory beside it: rows
// that depend on the prompt, and on the text where an encoder reads it, and that its cross-attention reads at every step.
// The memory's keys and values are made once, by promptParts; all beams of an item read the same ones.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { LayerCache } from "../kernels/append-cache.ts";
import type { Activation } from "../stages.ts";

/** Rows to run through the model, each at its place in its sequence. */
export interface SequenceRows {
  /** (rows, 4) u32 of (token, position, cache slot, sequence); see kernels/decode-state.ts for what may be missing. */
  readonly cursors: Tensor;
  /** (sequences, positions) u32: the cache slot of each position. */
  readonly table: Tensor;
  /** One per layer. */
  readonly cache: readonly LayerCache[];
  /** Where LanguageModel.memory is there. */
  readonly memory?: MemoryRows;
  /** Where LanguageModel.idsBehindContext is there: (sequences) u32, the positions of each context. */
  readonly contexts?: Tensor;
}

/** The memory as these rows read it; models/memory.ts has the reading. Rows are those of the sequence's cursors, in order. */
export interface MemoryRows {
  /** One per layer, (items * memory rows of an item, stride); written by promptParts. */
  readonly cache: readonly LayerCache[];
  /** (items, memory rows of an item) u32: the cache slot of each row of memory. */
  readonly table: Tensor;
  /** (rows, 4) u32 of (none, last row of memory that counts, none, item); a padding row has no row of memory. */
  readonly cursors: Tensor;
}

/**
 * The prompts of some items: `queries` image slots each, then the ids that the sequence begins with, padded on the right to
 * equal lengths.
 */
export interface PromptRows extends SequenceRows {
  /** What each item brings: (items, at least the elements of LanguageModel.prompt) f32 or f16. No padding under f32. */
  readonly prompt: Tensor;
  /** (items) u32: the last row of each item that is no padding. */
  readonly lastRows: Tensor;
  readonly memory?: MemoryMaking;
}

/** What a memory is made with, besides the prompt. Padding rows come last in an item, and enter nothing. */
export interface MemoryMaking extends MemoryRows {
  /** (items * memory rows of an item, 4) u32 of (none, none, cache slot, none): where keys and values of each row belong. */
  readonly slots: Tensor;
  /** (items) u32: how many rows of each item's memory count, at least one; MemoryForm.rows() of its text. */
  readonly lengths: Tensor;
  /** Where MemoryForm.encoder is there: (items * text rows, 4) u32 of (id, position from 0, none, item), none for padding. */
  readonly text?: Tensor;
}

/** A part of a forward pass that may be a submit of its own. */
export interface ModelPart<Rows> {
  /** Floating-point operations, about, for so many rows of so many items, with so many rows of memory together. */
  cost(rows: number, items: number, memoryRows: number): number;
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

/** The memory of an encoder-decoder model. Keys and values have as many layers, width and type as LanguageModel.cache. */
export interface MemoryForm {
  /** Rows of an item's memory whose text has so many ids; more ids never give fewer. */
  rows(textIds: number): number;
  /** How many of promptParts make it; those behind take nothing from them but the memory. */
  readonly parts: number;
  /**
   * Where an encoder reads the text of a row: what every sequence begins with instead, and the most ids that the encoder
   * reads. Left out where the text is what the sequence begins with.
   */
  readonly encoder?: { readonly start: readonly number[]; readonly maxTextIds: number };
}

/** A language model with its weights on the GPU. */
export interface LanguageModel {
  readonly vocabulary: number;
  readonly width: number;
  /** The widest activation inside and the width of the prompt, for the memory plan. */
  readonly widest: number;
  /** Positions that a sequence has; image slots, the ids it begins with and new ids together. */
  readonly maxPositions: number;
  /** What every row brings. */
  readonly prompt: Pick<Activation, "kind" | "shape">;
  /** Image slots at the start of a sequence: rows of the prompt, or 0 where the image is in the memory. */
  readonly queries: number;
  /** The id that stands for an image slot in a sequence of ids; null where there are no slots. */
  readonly imageId: number | null;
  /**
   * The ids that a sequence begins with hold imageId once, where its image slots belong by position; as rows the slots come
   * first all the same. Left out: they are in front of the ids, which do not hold imageId.
   */
  readonly slotsAmongIds?: true;
  /**
   * How many of the last ids that a sequence begins with are behind its context, whose positions see all of each other. Left
   * out: there is no context, a position sees what came before it.
   */
  readonly idsBehindContext?: number;
  /** Left out by a decoder-only model. */
  readonly memory?: MemoryForm;
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
