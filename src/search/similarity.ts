// How close images and texts are, from their vectors: the largest of the dot products of an image's unit vectors with
// the text's. Exact, over every image; sums in f64, in one order.

import type { Vectors } from "../stages.ts";

/** The vectors' values, row-major: (rows, width). */
export function vectorValues({ type, shape, bytes }: Vectors): Float32Array {
  const count = shape[0] * shape[1];
  return decodeVectors(bytes.subarray(0, count * (type === "f16" ? 2 : 4)), type);
}

/** The vectors, one by one: (width,) each. */
export function vectorRows(vectors: Vectors): Float32Array[] {
  const [rows, width] = vectors.shape;
  const values = vectorValues(vectors);
  return Array.from({ length: rows }, (_, row) => values.subarray(row * width, (row + 1) * width));
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
  const scores = new Float32Array(texts.length * count).fill(Number.NEGATIVE_INFINITY);
  for (let first = 0; first < texts.length; first += 4) {
    const four = [0, 1, 2, 3].map((i) => texts[Math.min(first + i, texts.length - 1)] as Float32Array);
    const products = texts.length - first === 1 ? oneProduct : fourProducts;
    for (let image = 0; image < count; image++) {
      for (let q = 0; q < queries; q++) {
        products(images, (image * queries + q) * width, four, width);
        for (let i = 0; i < 4 && first + i < texts.length; i++) {
          const place = (first + i) * count + image;
          scores[place] = Math.max(scores[place] as number, found[i] as number);
        }
      }
    }
  }
  return scores;
}

/** Where products are left: no array is made for each vector. */
const found = new Float64Array(4);

/** Four texts at a time: each value of the image is loaded once. Every product is one chain of additions over the width. */
function fourProducts(a: Float32Array, from: number, texts: readonly Float32Array[], width: number): void {
  const [t0, t1, t2, t3] = texts as [Float32Array, Float32Array, Float32Array, Float32Array];
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  for (let i = 0; i < width; i++) {
    const value = a[from + i] as number;
    s0 += value * (t0[i] as number);
    s1 += value * (t1[i] as number);
    s2 += value * (t2[i] as number);
    s3 += value * (t3[i] as number);
  }
  found[0] = s0;
  found[1] = s1;
  found[2] = s2;
  found[3] = s3;
}

/** The same chain for one text, so that a score does not depend on how many texts there are. */
function oneProduct(a: Float32Array, from: number, [text]: readonly Float32Array[], width: number): void {
  const t = text as Float32Array;
  let sum = 0;
  for (let i = 0; i < width; i++) sum += (a[from + i] as number) * (t[i] as number);
  found[0] = sum;
}

/** The vectors of what is searched for: one of a text, all of an image. */
export type SearchQuery = readonly Float32Array[];

/**
 * The score of every query with every image: for each of the query's vectors the largest cosine over the image's, and of these
 * the mean. For a text, which has one vector, that is the model's own cosine. For two images the model defines nothing:
 * the mean of maxima is ours. The largest of all would be decided by the slots that say much the same of every image.
 * @param images (images, queries, width), unit vectors
 * @returns (queries, images)
 */
export function imageScores(
  images: Float32Array,
  sizes: ImageVectorSizes,
  queries: readonly SearchQuery[],
): Float32Array {
  const largest = cosines(images, sizes, queries.flat());
  if (queries.every(({ length }) => length === 1)) return largest;
  const scores = new Float32Array(queries.length * sizes.images);
  let row = 0;
  for (const [q, { length }] of queries.entries()) {
    for (let image = 0; image < sizes.images; image++) {
      let sum = 0;
      for (let v = 0; v < length; v++) sum += largest[(row + v) * sizes.images + image] as number;
      scores[q * sizes.images + image] = sum / length;
    }
    row += length;
  }
  return scores;
}
