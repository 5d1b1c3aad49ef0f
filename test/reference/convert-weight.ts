// A piece of (rows, inputs) becomes columns of (inputs, stride), in f64.

import { convertPlainReference } from "./convert-plain.ts";

export interface Piece {
  readonly words: Uint32Array;
  readonly type: "f32" | "f16" | "bf16";
  readonly rows: number;
  readonly inputs: number;
}

/** Writes into `destination`, and zeros up to the next multiple of 4 columns. */
export function convertWeightReference(piece: Piece, destination: Float64Array, stride: number, column: number): void {
  const { words, type, rows, inputs } = piece;
  const values = convertPlainReference(words, type, rows * inputs);
  for (let input = 0; input < inputs; input++) {
    for (let r = 0; r < rows; r++) {
      destination[input * stride + column + r] = values[r * inputs + input] ?? Number.NaN;
    }
    for (let c = column + rows; c % 4 !== 0; c++) destination[input * stride + c] = 0;
  }
}
