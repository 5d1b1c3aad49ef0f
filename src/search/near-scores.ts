// Scores of many images, nearly: whole-number products by SIMD instead of f64 sums, with the most that they can be off. An
// image that cannot be among the best by these need not be compared exactly.

import { type Products, products } from "./code-programs.ts";
import type { ImageVectorSizes, SearchQuery } from "./similarity.ts";
import { wasmMemory } from "./wasm.ts";
import { mostSteps, toWholeNumbers } from "./whole-numbers.ts";

export class NearScores {
  readonly #sizes: ImageVectorSizes;
  readonly #queries: readonly SearchQuery[];
  readonly #memory;
  readonly #multiply: (product: Products) => void;
  readonly #product: Omit<Products, "rowCount">;
  readonly #steps: number;
  /** What one stands for in each of the queries' vectors. */
  readonly #units: readonly number[];
  /** The most that any score is off. */
  readonly error: number;

  /** @param sizes the most images at a time */
  constructor(sizes: ImageVectorSizes, queries: readonly SearchQuery[]) {
    const { images, queries: slots, width } = sizes;
    const vectors = queries.flat();
    const padded = Math.ceil(width / 8) * 8;
    const columnCount = Math.ceil(vectors.length / 4) * 4;
    const columns = images * slots * padded * 2;
    const out = columns + columnCount * padded * 2;
    this.#sizes = sizes;
    this.#queries = queries;
    this.#memory = wasmMemory(out + images * slots * columnCount * 4);
    this.#multiply = products(this.#memory);
    this.#product = { rows: 0, columns, out, columnCount, width: padded };
    this.#steps = mostSteps(width);
    const whole = new Int16Array(this.#memory.buffer, columns, columnCount * padded);
    this.#units = vectors.map((vector, v) => toWholeNumbers(vector, 0, width, this.#steps, whole, v * padded));
    // Each of two unit vectors is off by half a step a value, at most of 1; the sum of a unit vector's magnitudes is at most
    // the root of the width. What f32 and f64 round differently is far less than the rest of what is allowed here.
    const units = Math.max(...this.#units) + 1 / this.#steps;
    this.error = 0.51 * Math.sqrt(width) * units + (width * units * units) / 4;
  }

  /** @param images (count, queries, width), unit vectors. @returns (queries, count), as imageScores() */
  of(images: Float32Array, count: number): Float32Array {
    const { queries: slots, width } = this.#sizes;
    const { columnCount, out, width: padded } = this.#product;
    const rowCount = count * slots;
    const whole = new Int16Array(this.#memory.buffer, 0, rowCount * padded);
    const units = new Float64Array(rowCount);
    for (let row = 0; row < rowCount; row++) {
      units[row] = toWholeNumbers(images, row * width, width, this.#steps, whole, row * padded);
    }
    this.#multiply({ ...this.#product, rowCount });
    const sums = new Int32Array(this.#memory.buffer, out, rowCount * columnCount);
    const scores = new Float32Array(this.#queries.length * count);
    let column = 0;
    for (const [q, { length }] of this.#queries.entries()) {
      for (let v = 0; v < length; v++, column++) {
        const unit = (this.#units[column] as number) / length;
        for (let image = 0; image < count; image++) {
          let largest = Number.NEGATIVE_INFINITY;
          for (let row = image * slots; row < (image + 1) * slots; row++) {
            const near = (sums[row * columnCount + column] as number) * (units[row] as number);
            if (near > largest) largest = near;
          }
          scores[q * count + image] = (scores[q * count + image] as number) + largest * unit;
        }
      }
    }
    return scores;
  }
}
