// What kernel tests share: a device per test file, poisoned and guarded tensors, and comparison with f64 references.
//
//     const rig = await openRig();
//     const x = await rig.tensor("x", [3, 5], values);
//     const [y] = await rig.run((k) => [layerNorm(k, x, norm)]);
//     expectClose(y, layerNormReference(...), { absolute: 1e-5, relative: 1e-5, reason: "f32 sums of 5 terms" });
//
// Every tensor lies between two bands of NaN, bound together with it: reading past the end gives NaN, writing past it is
// found. Scratch that a kernel asks for starts as NaN too, so an element left out is found.

import assert from "node:assert/strict";
import { after } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { type Gpu, type OpenOptions, openGpu } from "../../src/gpu/device.ts";
import type { Recorder } from "../../src/gpu/recorder.ts";
import type { BoundBytes } from "../../src/gpu/recording.ts";
import { byteLength, type ElementType, elementCount, type Tensor } from "../../src/gpu/tensor.ts";
import { originOf } from "../../src/gpu/view.ts";
import { refuseNothing } from "./families.ts";

export type Values = Float32Array | Uint32Array | Int32Array;

/** NaN as one f32 and as two f16; as an integer, a value that no kernel computes. */
const poison = 0x7fc07fc0;
const band = 0x7fc17fc1;
/** Bytes; the largest storage offset alignment of any adapter, and more than a workgroup's stride of vec4s. */
const bandBytes = 4096;

export interface Rig {
  readonly gpu: Gpu;
  /**
   * A tensor of these values (poison if left out); f16 values are rounded to nearest even, of int8 and int4 the words are
   * given.
   */
  tensor(name: string, shape: readonly number[], values?: ArrayLike<number>, type?: ElementType): Promise<Tensor>;
  /** Record, replay `times` times in one submit, check all bands, read back what `forward` returned. */
  run(forward: (k: Recorder) => readonly Tensor[], times?: number): Promise<Values[]>;
  /** Values of a tensor that kernels update in place. */
  read(tensor: Tensor): Promise<Values>;
}

/** Open the device for this test file; fails where there is no adapter. It is closed when the file's tests are done. */
export async function openRig(options: OpenOptions = {}): Promise<Rig> {
  const gpu = await openGpu({ nap: true, tell: refuseNothing, ...options });
  process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
  after(() => gpu.close());
  const guarded: Tensor[] = [];

  /** The tensor with its bands, as one u32 tensor. */
  const around = (tensor: Tensor, bytes: number): Tensor => ({
    name: tensor.name,
    shape: [(2 * bandBytes + bytes) / 4],
    type: "u32",
    storage: tensor.storage,
    byteOffset: 0,
  });

  const make = (name: string, shape: readonly number[], type: ElementType): { tensor: Tensor; words: Uint32Array } => {
    const bytes = byteLength(shape, type);
    const words = new Uint32Array((2 * bandBytes + bytes) / 4).fill(band);
    words.fill(poison, bandBytes / 4, (bandBytes + bytes) / 4);
    const { storage } = gpu.alloc(name, [words.length], "u32");
    const tensor: Tensor & BoundBytes = {
      name,
      shape,
      type,
      storage,
      byteOffset: bandBytes,
      boundBytes: Math.floor((bandBytes + bytes) / 16) * 16,
    };
    guarded.push(tensor);
    return { tensor, words };
  };

  /** Of the tensors that kernels were given: no others can have been written. */
  const checkBands = async (bound: ReadonlySet<Tensor>) => {
    for (const tensor of guarded) {
      if (!bound.has(tensor)) continue;
      const bytes = byteLength(tensor.shape, tensor.type);
      const words = new Uint32Array(await gpu.read(around(tensor, bytes)));
      const from = bandBytes / 4;
      const to = (bandBytes + bytes) / 4;
      for (const [i, word] of words.entries()) {
        if ((i >= from && i < to) || word === band) continue;
        const where = i < from ? `${from - i} words before` : `${i - to} words after the end of`;
        assert.fail(`${tensor.name} (${tensor.shape.join(", ")}): a kernel wrote 0x${word.toString(16)} ${where} it`);
      }
    }
  };

  const read = async (tensor: Tensor): Promise<Values> => {
    const bytes = await gpu.read(tensor);
    if (tensor.type === "f16") return unpackF16(new Uint32Array(bytes)).subarray(0, elementCount(tensor.shape));
    if (tensor.type === "u32" || isPacked(tensor.type)) return new Uint32Array(bytes);
    if (tensor.type === "i32") return new Int32Array(bytes);
    return new Float32Array(bytes);
  };

  return {
    gpu,
    read,
    async tensor(name, shape, values, type = "f32") {
      const { tensor, words } = make(name, shape, type);
      if (values) {
        const count = isPacked(type) ? byteLength(shape, type) / 4 : elementCount(shape);
        assert.equal(values.length, count, `${name}: values for (${shape.join(", ")})`);
        const at = bandBytes / 4;
        if (type === "f16") words.set(packF16(values), at);
        else if (type === "f32") words.set(new Uint32Array(Float32Array.from(values).buffer), at);
        else words.set(new Uint32Array(Int32Array.from(values, (value) => value | 0).buffer), at);
      }
      await gpu.upload(around(tensor, byteLength(shape, type)), new Uint8Array(words.buffer));
      return tensor;
    },
    async run(forward, times = 1) {
      const kept = guarded.length;
      const uploads: { tensor: Tensor; words: Uint32Array }[] = [];
      const bound = new Set<Tensor>();
      const list = await gpu.record("test", (k) =>
        forward({
          softwareAdapter: k.softwareAdapter,
          variants: k.variants,
          scratch(name, shape, type = "f32") {
            const made = make(name, shape, type);
            uploads.push(made);
            return made.tensor;
          },
          launch(shader, launch) {
            for (const tensor of [...Object.values(launch.inputs), ...Object.values(launch.outputs)]) {
              bound.add(originOf(tensor));
            }
            k.launch(shader, launch);
          },
        }),
      );
      for (const { tensor, words } of uploads) {
        await gpu.upload(around(tensor, words.length * 4 - 2 * bandBytes), new Uint8Array(words.buffer));
      }
      await gpu.submit(new Array(times).fill(list));
      await checkBands(bound);
      const results: Values[] = [];
      for (const tensor of list.result) {
        const values = await read(tensor);
        const missed = values.findIndex((value) => value === poison && tensor.type !== "f32" && tensor.type !== "f16");
        if (missed >= 0) assert.fail(`${tensor.name}: element ${missed} of ${values.length} was not written`);
        results.push(values);
      }
      list.destroy();
      for (const tensor of guarded.splice(kept)) gpu.free(tensor);
      return results;
    },
  };
}

function isPacked(type: ElementType): boolean {
  return type === "int8" || type === "int4";
}

export interface Tolerance {
  readonly absolute: number;
  readonly relative: number;
  /** Why this much and no more; printed on a miss. */
  readonly reason: string;
}

/** Every |actual - expected| <= absolute + relative * |expected|, and nothing is NaN. */
export function expectClose(
  actual: ArrayLike<number> | undefined,
  expected: ArrayLike<number>,
  { absolute, relative, reason }: Tolerance,
): void {
  if (actual === undefined) assert.fail("expected values to compare, got undefined");
  assert.equal(actual.length, expected.length, "number of values");
  let misses = 0;
  let worst = 0;
  let worstIndex = -1;
  for (let i = 0; i < expected.length; i++) {
    const want = expected[i] ?? Number.NaN;
    const got = actual[i] ?? Number.NaN;
    if (Number.isNaN(want)) assert.fail(`the reference itself is NaN at ${i}`);
    const gap = got === want ? 0 : Math.abs(got - want);
    const allowed = absolute + relative * Math.abs(want);
    const excess = gap === 0 ? 0 : Number.isNaN(gap) ? Number.POSITIVE_INFINITY : gap / allowed;
    if (!(excess <= 1)) misses++;
    if (excess > worst) {
      worst = excess;
      worstIndex = i;
    }
  }
  if (misses > 0) {
    assert.fail(
      `${misses} of ${expected.length} values beyond absolute ${absolute} + relative ${relative} (${reason}); worst at ` +
        `${worstIndex}: got ${actual[worstIndex]}, expected ${expected[worstIndex]}, ${worst.toPrecision(3)} times the tolerance`,
    );
  }
}

/** Reproducible values in [-scale, scale): a 32-bit mixing function of (seed, i). */
export function randomValues(count: number, seed: number, scale = 1): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => {
    let x = Math.imul(i + 1, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
    x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
    x ^= x >>> 16;
    return ((x >>> 0) / 2 ** 31 - 1) * scale;
  });
}

/** The f16 bits nearest to a value, ties to even. */
export function toF16Bits(value: number): number {
  const sign = Object.is(value, -0) || value < 0 ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  // Scale so that one unit is the last place of the result, then round half to even.
  const exponent = size < 2 ** -14 ? -14 : Math.floor(Math.log2(size));
  const scaled = size / 2 ** (exponent - 10);
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  const rounded = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
  // A subnormal has no implicit bit; a carry moves into the exponent by itself.
  return sign | (exponent === -14 ? rounded : ((exponent + 14) << 10) + rounded);
}

export function fromF16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** The value after rounding to f16. */
export function roundF16(value: number): number {
  return fromF16Bits(toF16Bits(value));
}

/** Pairs in u32, low half first. */
export function packF16(values: ArrayLike<number>): Uint32Array {
  const words = new Uint32Array(Math.ceil(values.length / 2));
  for (let i = 0; i < values.length; i++) {
    words[i >> 1] = (words[i >> 1] ?? 0) | (toF16Bits(values[i] ?? 0) << (i % 2 === 0 ? 0 : 16));
  }
  return words;
}

export function unpackF16(words: Uint32Array): Float32Array {
  const values = new Float32Array(words.length * 2);
  for (const [i, word] of words.entries()) {
    values[2 * i] = fromF16Bits(word & 0xffff);
    values[2 * i + 1] = fromF16Bits(word >>> 16);
  }
  return values;
}
