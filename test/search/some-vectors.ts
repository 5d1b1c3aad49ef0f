// Vectors as image models make them, in small: slots with means of their own, few directions that vary much.

import { randomValues } from "../kernels/harness.ts";

/** (images, queries, width), unit vectors. */
export function unevenVectors(images: number, queries: number, width: number, seed: number): Float32Array {
  const centres = randomValues(queries * width, seed);
  const values = randomValues(images * queries * width, seed + 1);
  for (let from = 0; from < values.length; from += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) {
      const spread = 2 / Math.sqrt(1 + i);
      const value = (centres[(from + i) % centres.length] ?? 0) + spread * (values[from + i] ?? 0);
      values[from + i] = value;
      squares += value * value;
    }
    for (let i = 0; i < width; i++) values[from + i] = (values[from + i] ?? 0) / Math.sqrt(squares);
  }
  return values;
}

export function unitVector(width: number, seed: number): Float32Array {
  const values = randomValues(width, seed);
  const length = Math.hypot(...values);
  return values.map((value) => value / length);
}
