// The f16 nearest to a value, ties to even, found by comparing with every f16 there is.

import { takeOverReference } from "./take-over.ts";

/** The bits of all f16 from 0 to 65504 in rising order, and then 65536, which stands for inf. */
const sizes = [...takeOverReference(Uint32Array.from({ length: 0x7c00 }, (_, bits) => bits)), 65536];

/** f16 bits of each value. */
export function handOverReference(values: ArrayLike<number>): Uint32Array {
  return Uint32Array.from({ length: values.length }, (_, i) => {
    const value = values[i] ?? Number.NaN;
    if (Number.isNaN(value)) return 0x7e00;
    const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
    const size = Math.min(Math.abs(value), 65536);
    let low = 0;
    let high = sizes.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((sizes[middle] ?? 0) <= size) low = middle;
      else high = middle;
    }
    const below = size - (sizes[low] ?? 0);
    const above = (sizes[high] ?? 0) - size;
    const nearest = below < above || (below === above && low % 2 === 0) ? low : high;
    return sign | nearest;
  });
}
