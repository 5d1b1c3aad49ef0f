// Tensors of trials: values that a table of 256 holds, exact in every type of weights, so that answers need no rounding.

import type { Gpu } from "../gpu/device.ts";
import { byteLength, type ElementType, groupSize, isPacked, type Tensor } from "../gpu/tensor.ts";
import { convertWeight } from "../kernels/convert-weight.ts";
import { quantizeWeight } from "../kernels/quantize-weight.ts";
import type { Linear, WeightType } from "../kernels/weights.ts";

/** Whole 128ths in [-1, 1): eight bits, as many as bf16 has. */
const values = Float32Array.from({ length: 256 }, (_, i) => (i - 128) / 128);
const halfWords = Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16);
/** The same as f16: an exponent of five bits in place of eight. All but 0 are large enough to be normal. */
const f16Words = Uint16Array.from(new Uint32Array(values.buffer), (bits) =>
  bits === 0 ? 0 : ((bits >>> 16) & 0x8000) | (((bits & 0x7fffffff) >>> 13) - (112 << 10)),
);

/** Bytes of a matrix that are on their way at a time. */
const pieceBytes = 16 * 1024 * 1024;

/** A mixing function of (seed, i), 0 to 255. */
function pick(i: number, seed: number): number {
  const x = Math.imul(i ^ Math.imul(seed + 1, 0x85ebca6b), 0x9e3779b1);
  return Math.imul(x ^ (x >>> 15), 0x846ca68b) >>> 24;
}

/** Element `i` of the tensor of this seed. */
export function valueAt(i: number, seed: number): number {
  return values[pick(i, seed)] as number;
}

/** The weight of input k and column c, where `i` is c · inputs + k: of whole numbers those that each group's -1 leaves exact. */
export function weightAt(i: number, inputs: number, type: WeightType, seed: number): number {
  const value = valueAt(i, seed);
  if (!isPacked(type)) return value;
  if ((i % inputs) % groupSize === 0) return -1;
  return type === "int8" ? value : Math.floor(8 * value) / 8;
}

/** Makes tensors, and frees them together. */
export class TrialTensors {
  readonly #gpu: Gpu;
  readonly #made: Tensor[] = [];

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** Element i of it valueAt(i, seed); of f16 an even number of them. */
  async random(name: string, shape: readonly number[], seed: number, type: "f32" | "f16" = "f32"): Promise<Tensor> {
    const tensor = this.#alloc(name, shape, type);
    const length = shape.reduce((a, b) => a * b, 1);
    const data =
      type === "f16"
        ? Uint16Array.from({ length }, (_, i) => f16Words[pick(i, seed)] as number)
        : Float32Array.from({ length }, (_, i) => valueAt(i, seed));
    await this.#gpu.upload(tensor, new Uint8Array(data.buffer));
    return tensor;
  }

  async integers(name: string, shape: readonly number[], data: readonly number[]): Promise<Tensor> {
    const tensor = this.#alloc(name, shape, "u32");
    await this.#gpu.upload(tensor, new Uint8Array(Uint32Array.from(data).buffer));
    return tensor;
  }

  /**
   * y = x·W without a bias, in as few segments as bindings allow. The weight of input k and column c is
   * weightAt(c · inputs + k, inputs, type, seed). `columns` is a multiple of 4.
   */
  async linear(inputs: number, columns: number, type: WeightType, seed: number): Promise<Linear> {
    const gpu = this.#gpu;
    const most = Math.floor(gpu.bindingLimit / byteLength([inputs, 4], type)) * 4;
    const segments: Linear["segments"][number][] = [];
    for (let from = 0; from < columns; from += most) {
      const width = Math.min(most, columns - from);
      const weight = this.#alloc("weight", [inputs, width], type);
      segments.push({ weight, from, width });
      await this.#fill(weight, { inputs, from, width, seed });
    }
    return { segments, bias: null, inputs, columns };
  }

  free(): void {
    for (const tensor of this.#made.splice(0)) this.#gpu.free(tensor);
  }

  async #fill(
    weight: Tensor,
    { inputs, from, width, seed }: { inputs: number; from: number; width: number; seed: number },
  ): Promise<void> {
    const gpu = this.#gpu;
    const rows = Math.min(width, Math.max(4, Math.floor(pieceBytes / (2 * inputs) / 4) * 4));
    const bytes = gpu.alloc("bytes", [Math.ceil((rows * inputs) / 2)], "u32");
    const refused = gpu.alloc("refused", [1], "u32");
    const type = weight.type as WeightType;
    try {
      for (let row = 0; row < width; row += rows) {
        const count = Math.min(rows, width - row);
        const words = new Uint16Array(Math.ceil((count * inputs) / 2) * 2);
        const first = (from + row) * inputs;
        for (let i = 0; i < count * inputs; i++) {
          words[i] = halfWords[128 * weightAt(first + i, inputs, type, seed) + 128] as number;
        }
        await gpu.upload(bytes, new Uint8Array(words.buffer));
        const list = await gpu.record("fill", (k) => {
          const piece = { bytes, type: "bf16", rows: count, inputs } as const;
          if (isPacked(type)) quantizeWeight(k, piece, weight, row, { refused, number: 1 });
          else convertWeight(k, piece, weight, row);
        });
        await gpu.submit([list]);
        list.destroy();
      }
    } finally {
      gpu.free(bytes);
      gpu.free(refused);
    }
  }

  #alloc(name: string, shape: readonly number[], type: ElementType): Tensor {
    const tensor = this.#gpu.alloc(name, shape, type);
    this.#made.push(tensor);
    return tensor;
  }
}
