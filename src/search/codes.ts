// Short codes of vectors, from which a query's cosines are estimated with a known error: what decides which images of a
// large index are compared exactly. The estimator is RaBitQ's (Gao and Long, SIGMOD 2024), after a change of basis.
//
//     r = v - centre of its slot            what the mean of this slot over all images leaves of a vector
//     y = E r                               (codeWidth,): E as in fitBasis
//     ŷ = levels nearest to y, in units of the root mean square of y     1 or 2 bits a value
//     f = |y|² / (y . ŷ)                    one factor a vector, so that f ŷ has y's component along itself
//
//     q . v = q . centre + (D q) . y        because D'E = 1
//           ≈ q . centre + f (D q) . ŷ      with a normally distributed error of f |D q| deviation(bits)
//
// E is a random rotation after S^-1/4, D the same rotation after S^1/4, S the covariance of all r: errors spread evenly over
// the directions, and what of a query lies where images do not differ costs nothing.

import { laneOfSlot, lanes, type Products, products } from "./code-programs.ts";
import { eigenvectors, randomRotation } from "./spectrum.ts";
import { type WasmMemory, wasmMemory } from "./wasm.ts";
import { mostSteps, toWholeNumbers } from "./whole-numbers.ts";

export type CodeBits = 1 | 2;

/** Of normally distributed values: Max, "Quantizing for minimum distortion", 1960. */
const quantizers = {
  1: { inner: 0.7979, outer: 0.7979, bound: 0, levels: [-0.7979, 0.7979], alignment: 0.7979 },
  2: { inner: 0.4528, outer: 1.51, bound: 0.9816, levels: [-1.51, -0.4528, 0.4528, 1.51], alignment: 0.9396 },
} as const;

/** How vectors of one index are coded. */
export interface CodeBasis {
  readonly bits: CodeBits;
  readonly queries: number;
  readonly width: number;
  /** Values of a code: the width, or a few more, so that codes are whole bytes. */
  readonly codeWidth: number;
  /** (queries, width) */
  readonly centres: Float32Array;
  /** E: (codeWidth, width) */
  readonly encoder: Float32Array;
  /** D: (codeWidth, width) */
  readonly decoder: Float32Array;
}

/** Sizes in bytes of what belongs to one image. */
export function codeSizes({ bits, queries, codeWidth }: Pick<CodeBasis, "bits" | "queries" | "codeWidth">): {
  /** Of 16 vectors each. */
  readonly blocks: number;
  readonly codeBytes: number;
  readonly imageCodes: number;
  readonly imageFactors: number;
} {
  const blocks = Math.ceil(queries / lanes);
  const codeBytes = (codeWidth * bits) / 8;
  return { blocks, codeBytes, imageCodes: blocks * lanes * codeBytes, imageFactors: blocks * lanes * 2 };
}

/** Of the mean variance, what is added to every direction's: no direction is weighted more than six times the mean one. */
const leastVariance = 1e-3;

/**
 * The basis for images like these.
 * @param sample (images, queries, width), at least one image
 */
export function fitBasis(sample: Float32Array, queries: number, width: number, bits: CodeBits): CodeBasis {
  const codeWidth = Math.ceil(width / 8) * 8;
  const size = queries * width;
  const images = sample.length / size;
  const centres = new Float64Array(size);
  for (let i = 0; i < sample.length; i++)
    centres[i % size] = (centres[i % size] as number) + (sample[i] as number) / images;
  const { values, vectors } = eigenvectors(covarianceOf(sample, centres, width), width);
  const floor = (leastVariance * values.reduce((sum, value) => sum + Math.max(0, value), 0)) / width;
  const rotation = randomRotation(codeWidth, width);
  const weighted = (power: number) => {
    const weights = Array.from(values, (value) => (floor === 0 ? 1 : (Math.max(0, value) + floor) ** power));
    const matrix = new Float32Array(codeWidth * width);
    for (let row = 0; row < codeWidth; row++) {
      const sums = new Float64Array(width);
      for (let each = 0; each < width; each++) {
        const part = (rotation[row * width + each] as number) * (weights[each] as number);
        for (let i = 0; i < width; i++) sums[i] = (sums[i] as number) + part * (vectors[each * width + i] as number);
      }
      matrix.set(sums, row * width);
    }
    return matrix;
  };
  const shared = { bits, queries, width, codeWidth, centres: Float32Array.from(centres) };
  return { ...shared, encoder: weighted(-1 / 4), decoder: weighted(1 / 4) };
}

/** (width, width) */
function covarianceOf(sample: Float32Array, centres: Float64Array, width: number): Float64Array {
  const sums = new Float64Array(width * width);
  const residual = new Float64Array(width);
  for (let from = 0; from < sample.length; from += width) {
    for (let i = 0; i < width; i++)
      residual[i] = (sample[from + i] as number) - (centres[(from + i) % centres.length] as number);
    for (let i = 0; i < width; i++) {
      const value = residual[i] as number;
      for (let j = 0; j <= i; j++)
        sums[i * width + j] = (sums[i * width + j] as number) + value * (residual[j] as number);
    }
  }
  const scale = width / sample.length;
  for (let i = 0; i < width; i++) {
    for (let j = 0; j <= i; j++) sums[i * width + j] = sums[j * width + i] = (sums[i * width + j] as number) * scale;
  }
  return sums;
}

/** Makes codes, one image at a time. */
export class Encoder {
  readonly #basis: CodeBasis;
  readonly #memory: WasmMemory;
  readonly #multiply: (product: Products) => void;
  readonly #product: Products;
  readonly #steps: number;
  /** What one stands for in each row of E. */
  readonly #units: Float64Array;
  readonly #residuals: Float64Array;
  readonly #values: Float64Array;

  constructor(basis: CodeBasis) {
    const { queries, width, codeWidth, encoder } = basis;
    const padded = Math.ceil(width / 8) * 8;
    const columns = queries * padded * 2;
    const out = columns + codeWidth * padded * 2;
    this.#basis = basis;
    this.#memory = wasmMemory(out + queries * codeWidth * 4);
    this.#multiply = products(this.#memory);
    this.#product = { rows: 0, columns, out, rowCount: queries, columnCount: codeWidth, width: padded };
    this.#steps = mostSteps(width);
    const whole = new Int16Array(this.#memory.buffer, columns, codeWidth * padded);
    this.#units = Float64Array.from({ length: codeWidth }, (_, row) =>
      toWholeNumbers(encoder, row * width, width, this.#steps, whole, row * padded),
    );
    this.#residuals = new Float64Array(width);
    this.#values = new Float64Array(codeWidth);
  }

  /**
   * @param image (queries, width), unit vectors
   * @param codes (blocks, codeBytes, 16) of the image, written
   * @param factors upper halves of f32, (blocks * 16) of the image, written
   */
  encode(image: Float32Array, codes: Uint8Array, factors: Uint16Array): void {
    const { queries, codeWidth } = this.#basis;
    const { rows, out, width: padded } = this.#product;
    const whole = new Int16Array(this.#memory.buffer, rows, queries * padded);
    const units = new Float64Array(queries);
    for (let slot = 0; slot < queries; slot++) units[slot] = this.#residual(image, slot, whole.subarray(slot * padded));
    this.#multiply(this.#product);
    const sums = new Int32Array(this.#memory.buffer, out, queries * codeWidth);
    codes.fill(0);
    factors.fill(0);
    for (let slot = 0; slot < queries; slot++) {
      const unit = units[slot] as number;
      for (let i = 0; i < codeWidth; i++) {
        this.#values[i] = (sums[slot * codeWidth + i] as number) * unit * (this.#units[i] as number);
      }
      factors[slot] = upperHalf(this.#encodeSlot(slot, codes));
    }
  }

  /** r of a slot as whole numbers. @returns what one stands for */
  #residual(image: Float32Array, slot: number, whole: Int16Array): number {
    const { width, centres } = this.#basis;
    const from = slot * width;
    for (let i = 0; i < width; i++) this.#residuals[i] = (image[from + i] as number) - (centres[from + i] as number);
    return toWholeNumbers(this.#residuals, 0, width, this.#steps, whole, 0);
  }

  /** ŷ of a slot, from y. @returns f */
  #encodeSlot(slot: number, codes: Uint8Array): number {
    const { bits, codeWidth } = this.#basis;
    const { inner, outer, bound } = quantizers[bits];
    const y = this.#values;
    let squares = 0;
    for (let i = 0; i < codeWidth; i++) squares += (y[i] as number) * (y[i] as number);
    const border = bound * Math.sqrt(squares / codeWidth);
    const inByte = 8 / bits;
    let at = Math.floor(slot / lanes) * codeSizes(this.#basis).codeBytes * lanes + (laneOfSlot[slot % lanes] as number);
    let along = 0;
    for (let first = 0; first < codeWidth; first += inByte) {
      let byte = 0;
      for (let k = 0; k < inByte; k++) {
        const value = y[first + k] as number;
        const size = Math.abs(value);
        const isOuter = size > border;
        along += size * (isOuter ? outer : inner);
        byte |= levelOf(bits, value > 0, isOuter) << (k * bits);
      }
      codes[at] = byte;
      at += lanes;
    }
    return along === 0 ? 0 : squares / along;
  }
}

/** The place in `levels`. */
function levelOf(bits: CodeBits, isPositive: boolean, isOuter: boolean): number {
  if (bits === 1) return isPositive ? 1 : 0;
  return isPositive ? (isOuter ? 3 : 2) : isOuter ? 0 : 1;
}

const oneFloat = new Float32Array(1);
const itsBits = new Uint32Array(oneFloat.buffer);

/** The nearest f32 with 16 bits: bfloat16. */
function upperHalf(value: number): number {
  oneFloat[0] = value;
  return ((itsBits[0] as number) + 0x8000) >>> 16;
}

/** matrix (rows, width) times a vector (width,). */
function transformed(matrix: Float32Array, vector: ArrayLike<number>): Float64Array {
  const width = vector.length;
  return Float64Array.from({ length: matrix.length / width }, (_, row) => {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += (matrix[row * width + i] as number) * (vector[i] as number);
    return sum;
  });
}

/** What a query's vector is against codes; the arguments of codeScan. */
export interface CodeQuery {
  /** (2 * codeBytes, 16), from 0 to 127 */
  readonly tables: Uint8Array;
  /** (blocks * 16,) */
  readonly starts: Float32Array;
  readonly scale: number;
  readonly offset: number;
}

/**
 * Tables by which a scan of codes gives, for each image, what its largest cosine with this vector hardly exceeds: the largest
 * of its vectors' estimates, each raised by `deviations` of its error.
 */
export function codeQuery(basis: CodeBasis, vector: Float32Array, deviations: number): CodeQuery {
  const { bits, queries, width, codeWidth, centres, decoder } = basis;
  const { blocks, codeBytes } = codeSizes(basis);
  const { levels, alignment } = quantizers[bits];
  const decoded = transformed(decoder, vector);
  const inHalf = 4 / bits;
  const sums = new Float64Array(codeBytes * 2 * 16);
  for (let i = 0; i < sums.length; i++) {
    const half = i >> 4;
    for (let k = 0; k < inHalf; k++) {
      const level = levels[((i & 15) >> (k * bits)) & (levels.length - 1)] as number;
      sums[i] = (sums[i] as number) + level * (decoded[half * inHalf + k] as number);
    }
  }
  let [offset, widest] = [0, 0];
  for (let half = 0; half < codeBytes * 2; half++) {
    const own = sums.subarray(half * 16, half * 16 + 16);
    const least = Math.min(...own);
    widest = Math.max(widest, Math.max(...own) - least);
    offset += least;
    for (let i = 0; i < 16; i++) own[i] = (own[i] as number) - least;
  }
  const scale = widest / 127;
  const tables = Uint8Array.from(sums, (sum) => (scale === 0 ? 0 : Math.round(sum / scale)));
  const starts = new Float32Array(blocks * lanes).fill(Number.NEGATIVE_INFINITY);
  for (let slot = 0; slot < queries; slot++) {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += (vector[i] as number) * (centres[slot * width + i] as number);
    starts[slot] = sum;
  }
  const squares = decoded.reduce((sum, value) => sum + value * value, 0);
  const deviation = alignment * Math.sqrt(((1 - alignment * alignment) * squares * codeWidth) / (codeWidth - 1));
  return { tables, starts, scale, offset: offset + deviations * deviation };
}
