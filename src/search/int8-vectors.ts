// Unit vectors as whole numbers from -127 to 127: a quarter of f32, half of f16.
//
// A stored vector stands for its direction, because the length is known to be 1: v = q / |q|, where q is v times 127 over
// its largest value, rounded. No scale is stored.

import { toWholeNumbers } from "./whole-numbers.ts";

/** The largest magnitude. */
const most = 127;

/**
 * @param values (vectors, width)
 * @returns the same shape; a vector of zeros stays one
 */
export function quantizeVectors(values: Float32Array, width: number): Int8Array {
  const quantized = new Int8Array(values.length);
  for (let from = 0; from < values.length; from += width) toWholeNumbers(values, from, width, most, quantized, from);
  return quantized;
}

/** The unit vectors that they stand for. `into` has as many values. */
export function unitVectors(quantized: Int8Array, width: number, into: Float32Array): void {
  for (let from = 0; from < quantized.length; from += width) {
    let squares = 0;
    for (let i = from; i < from + width; i++) squares += (quantized[i] as number) * (quantized[i] as number);
    const scale = squares === 0 ? 0 : 1 / Math.sqrt(squares);
    for (let i = from; i < from + width; i++) into[i] = (quantized[i] as number) * scale;
  }
}
