// Values as whole numbers with a scale of their own, as SIMD multiplies them.

/** Added and taken away again, it leaves of an f64 the nearest whole number: 1.5 * 2^52. Math.round takes five times as long. */
const rounding = 6755399441055744;

/**
 * @param values `width` of them from `from` on
 * @param steps the largest whole number
 * @param into written from `at` on
 * @returns what one stands for; 0 where all values are 0
 */
export function toWholeNumbers(
  values: Float32Array | Float64Array,
  from: number,
  width: number,
  steps: number,
  into: Int8Array | Int16Array,
  at: number,
): number {
  let largest = 0;
  for (let i = from; i < from + width; i++) {
    const value = values[i] as number;
    if (value > largest) largest = value;
    else if (-value > largest) largest = -value;
  }
  const scale = largest === 0 ? 0 : steps / largest;
  for (let i = 0; i < width; i++) into[at + i] = (values[from + i] as number) * scale + rounding - rounding;
  return largest / steps;
}

/** The largest whole number of two factors whose `width` products make a sum that fits 31 bits. */
export function mostSteps(width: number): number {
  return Math.min(32767, Math.floor(Math.sqrt((2 ** 31 - 1) / width)));
}
