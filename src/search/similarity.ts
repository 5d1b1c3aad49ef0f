// How close images and texts are, from their vectors: the largest of the dot products of an image's unit vectors with
// the text's. Exact, over every image; sums in f64, in one order.

import type { Vectors } from "../stages.ts";

/** The vectors' values, row-major: (rows, width). */
export function vectorValues({ type, shape, bytes }: Vectors): Float32Array {
  const count = shape[0] * shape[1];
  return decodeVectors(bytes.subarray(0, count * (type === "f16" ? 2 : 4)), type);
}

/** Little-endian f32 or f16 as f32. `into` may be given where many blocks are read; its length is the number of values. */
export function decodeVectors(bytes: Uint8Array, type: "f32" | "f16", into?: Float32Array): Float32Array {
  const values = into ?? new Float32Array(bytes.length / (type === "f16" ? 2 : 4));
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  if (type === "f32") {
    values.set(new Float32Array(aligned.buffer, aligned.byteOffset, values.length));
    return values;
  }
  const halves = new Uint16Array(aligned.buffer, aligned.byteOffset, values.length);
  const table = f16Values();
  for (let i = 0; i < halves.length; i++) values[i] = table[halves[i] as number] as number;
  return values;
}

let halfTable: Float32Array | undefined;

/** The value of every f16 by its bits. */
function f16Values(): Float32Array {
  halfTable ??= Float32Array.from({ length: 65536 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
    return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
  });
  return halfTable;
}

/** The sizes of a block of images: each has `queries` vectors of `width` values. */
export interface ImageVectorSizes {
  readonly images: number;
  readonly queries: number;
  readonly width: number;
}

/**
 * The cosine of every text with every image: the largest over the image's vectors.
 * @param images (images, queries, width), unit vectors
 * @param texts one unit vector of `width` each
 * @returns (texts, images)
 */
export function cosines(
  images: Float32Array,
  { images: count, queries, width }: ImageVectorSizes,
  texts: readonly Float32Array[],
): Float32Array {
  const scores = new Float32Array(texts.length * count);
  for (const [t, text] of texts.entries()) {
    for (let image = 0; image < count; image++) {
      let largest = Number.NEGATIVE_INFINITY;
      for (let q = 0; q < queries; q++) {
        largest = Math.max(largest, dot(images, (image * queries + q) * width, text, width));
      }
      scores[t * count + image] = largest;
    }
  }
  return scores;
}

/** Four sums side by side: the processor need not wait for one addition before the next. */
function dot(a: Float32Array, from: number, b: Float32Array, width: number): number {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  const whole = width - (width % 4);
  for (let i = 0; i < whole; i += 4) {
    s0 += (a[from + i] as number) * (b[i] as number);
    s1 += (a[from + i + 1] as number) * (b[i + 1] as number);
    s2 += (a[from + i + 2] as number) * (b[i + 2] as number);
    s3 += (a[from + i + 3] as number) * (b[i + 3] as number);
  }
  for (let i = whole; i < width; i++) s0 += (a[from + i] as number) * (b[i] as number);
  return s0 + s1 + (s2 + s3);
}
