// What models that compare images with texts share: a text as the blocks of a row, and unit vectors out of a stage.

import type { Recorder } from "../gpu/recorder.ts";
import type { RowProgram } from "../gpu/row-program.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { handOver } from "../kernels/hand-over.ts";
import { matmul } from "../kernels/matmul.ts";
import { unitRows } from "../kernels/unit-rows.ts";
import type { Linear } from "../kernels/weights.ts";
import {
  type Activation,
  type ActivationType,
  activationType,
  type ContrastCard,
  type Pixels,
  type Vectors,
} from "../stages.ts";
import { TextError } from "./errors.ts";
import type { Block } from "./staged-program.ts";

/** What every such model runs. */
export interface ContrastPrograms {
  readonly encode?: RowProgram<Pixels, Activation>;
  readonly queryImage?: RowProgram<Activation, Vectors>;
  readonly queryText?: RowProgram<readonly number[], Vectors>;
}

/** rows (any, width) -> unit vectors (any, projectionWidth) in the type of a hand-over */
export function unitVectors(
  k: Recorder,
  projection: Linear,
  rows: Tensor,
  { dtype }: Pick<ContrastCard, "dtype">,
): Tensor {
  return handOver(k, unitRows(k, matmul(k, rows, projection)), activationType(dtype));
}

/** Output and result of a stage that ends in vectors. */
export function vectorsOf(type: ActivationType, shape: readonly [number, number]) {
  return { output: { shape, type }, resultOf: (bytes: Uint8Array): Vectors => ({ type, shape, bytes }) };
}

/** The cursors of a text that has room for `textRows` ids; see embedTokens. */
export function cursorsOf(textRows: number): Block {
  return { shape: [textRows, 4], type: "u32" };
}

/** One number that a row brings along: how long its sequence is, or where something stands in it. */
export const oneNumber: Block = { shape: [1], type: "u32" };

/** What embedTokens takes for a place of padding: no token, no position. */
const none = 0xffffffff;

export function cursorBytes(ids: readonly number[], textRows: number): Uint8Array {
  const cursors = new Uint32Array(4 * textRows).fill(none);
  for (const [position, id] of ids.entries()) cursors.set([id, position, none, 0], 4 * position);
  return new Uint8Array(cursors.buffer);
}

export function numberBytes(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

/** How many ids a text has. @throws TextError when the model cannot read them */
export function checkedLength(
  text: { readonly vocabulary: number; readonly maxPositions: number },
  ids: readonly number[],
): number {
  if (ids.length === 0) throw new TextError("text: expected at least one token, got none");
  if (ids.length > text.maxPositions) {
    throw new TextError(
      `text: expected at most ${text.maxPositions} tokens, the positions that the model has, got ${ids.length}; shorten the text`,
    );
  }
  const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= text.vocabulary);
  if (bad === undefined) return ids.length;
  throw new TextError(`text: expected token ids below the model's ${text.vocabulary}, got ${bad}`);
}
