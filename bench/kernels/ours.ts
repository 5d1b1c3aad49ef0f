// Our side of a comparison: random weights on the GPU, and a recorded list over them.

import type { Gpu } from "../../src/gpu/device.ts";
import type { Recorder } from "../../src/gpu/recorder.ts";
import { byteLength, type ElementType, elementCount, groupSize, type Tensor } from "../../src/gpu/tensor.ts";
import { view } from "../../src/gpu/view.ts";
import { attention } from "../../src/kernels/attention.ts";
import { cachedAttention } from "../../src/kernels/cached-attention.ts";
import { layerNorm } from "../../src/kernels/layer-norm.ts";
import { matmul } from "../../src/kernels/matmul.ts";
import type { Linear, Norm } from "../../src/kernels/weights.ts";
import type { LanguageModel, SequenceRows } from "../../src/models/language-model.ts";
import { type OptLayer, optLanguageModel } from "../../src/models/opt.ts";
import { encodeImage, type VitLayer, type VitWeights, vitBlock } from "../../src/models/vit.ts";
import { sampleSize } from "./onnx-model.ts";
import { type RandomValues, randomBytesOf, randomWords } from "./random-values.ts";
import {
  type AttentionShape,
  decodeMean,
  inputValues,
  keyScale,
  type LinearShape,
  type OptShape,
  quantizedScale,
  seeds,
  type VitShape,
} from "./shapes.ts";

type Type = "f32" | "f16";
type Quantized = "int8" | "int4";

/** What a side of a comparison can do; times are in milliseconds. */
export interface Side {
  /** Until the first result, weights being there: what is compiled is compiled here. */
  readonly first: number;
  /** The first elements of the result, to be compared with the other side's. */
  readonly sample: readonly number[];
  /** From an input on the host to those elements on the host. */
  run(): Promise<number>;
  close(): Promise<void>;
}

/** Records what is timed over the input, which is there already. */
export type Forward = (k: Recorder, x: Tensor) => Tensor;

/** Makes random tensors, and frees them together. */
export class Weights {
  readonly #gpu: Gpu;
  readonly #tensors: Tensor[] = [];

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  async tensor(name: string, shape: readonly number[], values: RandomValues, type: Type = "f32"): Promise<Tensor> {
    const tensor = this.#alloc(name, shape, type);
    await this.#gpu.upload(tensor, randomBytesOf(type, elementCount(shape), values));
    return tensor;
  }

  async integers(name: string, shape: readonly number[], values: readonly number[]): Promise<Tensor> {
    const tensor = this.#alloc(name, shape, "u32");
    await this.#gpu.upload(tensor, new Uint8Array(Uint32Array.from(values).buffer));
    return tensor;
  }

  /** A matrix in as few segments as the device's bindings allow. Its columns are a multiple of 4. */
  linear(shape: LinearShape, type: Type): Promise<Linear> {
    return this.stacked([shape], type);
  }

  /** Matrices of the same inputs side by side. */
  async stacked(parts: readonly LinearShape[], type: Type): Promise<Linear> {
    const inputs = parts[0]?.inputs ?? 0;
    const columns = parts.reduce((sum, part) => sum + part.columns, 0);
    const width = type === "f16" ? 2 : 4;
    const most = Math.floor(this.#gpu.bindingLimit / (inputs * width) / 4) * 4;
    const count = Math.ceil(columns / most);
    const each = Math.ceil(columns / count / 4) * 4;
    const segments: Linear["segments"][number][] = [];
    const scale = seeds.weightScale(inputs);
    for (let from = 0; from < columns; from += each) {
      const own = Math.min(each, columns - from);
      const weight = this.#alloc("weight", [inputs, own], type);
      const bytes = new Uint8Array(inputs * own * width);
      let before = 0;
      for (const part of parts) {
        const [start, end] = [Math.max(from - before, 0), Math.min(from + own - before, part.columns)];
        for (let row = 0; row < inputs && start < end; row++) {
          const values = randomBytesOf(type, end - start, { seed: part.seed, scale }, row * part.columns + start);
          bytes.set(values, (row * own + before + start - from) * width);
        }
        before += part.columns;
      }
      await this.#gpu.upload(weight, bytes);
      segments.push({ weight, from, width: own });
    }
    const bias = this.#alloc("bias", [columns], "f32");
    let first = 0;
    for (const part of parts) {
      const values = randomBytesOf("f32", part.columns, { seed: part.seed + 1, scale: seeds.biasScale });
      await this.#gpu.upload(bias, values, 4 * first);
      first += part.columns;
    }
    return { segments, bias, inputs, columns };
  }

  /**
   * The peer's whole numbers as ours: it stores them with 2^(bits - 1) added, a column's group behind the other, and words of
   * neighbouring inputs as ours are. Inputs are a multiple of 32, columns of 4.
   */
  async quantized(shape: LinearShape, type: Quantized): Promise<Linear> {
    const [linear] = await this.quantizedCopies(shape, type, 1);
    if (linear === undefined) throw new RangeError("quantized: expected one matrix, got none");
    return linear;
  }

  /** The same matrix so many times, each in buffers of its own. */
  async quantizedCopies({ inputs, columns, seed }: LinearShape, type: Quantized, copies: number): Promise<Linear[]> {
    const bits = type === "int8" ? 8 : 4;
    const groups = inputs / groupSize;
    const inGroup = bits;
    const theirs = randomWords(columns * groups * inGroup, seed);
    const sign = type === "int8" ? 0x80808080 : 0x88888888;
    const [scale = 0] = new Uint32Array(Float32Array.of(quantizedScale(inputs, bits)).buffer);
    const most = Math.floor(this.#gpu.bindingLimit / byteLength([inputs, 4], type)) * 4;
    const linears = [];
    for (let i = 0; i < copies; i++) {
      const bias = await this.tensor("bias", [columns], { seed: seed + 1, scale: seeds.biasScale });
      linears.push({ segments: [] as Linear["segments"][number][], bias, inputs, columns });
    }
    for (let from = 0; from < columns; from += most) {
      const width = Math.min(most, columns - from);
      const words = new Uint32Array(byteLength([inputs, width], type) / 4).fill(scale | (scale >>> 16));
      for (let g = 0; g < groups; g++) {
        const start = g * width * (inGroup + 0.5);
        for (let w = 0; w < inGroup; w++) {
          for (let c = 0; c < width; c++) {
            words[start + w * width + c] = (theirs[((from + c) * groups + g) * inGroup + w] ?? 0) ^ sign;
          }
        }
      }
      for (const { segments } of linears) {
        const weight = this.#alloc("weight", [inputs, width], type);
        await this.#gpu.upload(weight, new Uint8Array(words.buffer));
        segments.push({ weight, from, width });
      }
    }
    return linears;
  }

  async norm(width: number, seed: number): Promise<Norm> {
    const gain = await this.tensor("gain", [width], { seed, scale: seeds.gainScale, mean: 1 });
    const bias = await this.tensor("bias", [width], { seed: seed + 1, scale: seeds.biasScale });
    return { gain, bias, eps: seeds.eps };
  }

  free(): void {
    for (const tensor of this.#tensors.splice(0)) this.#gpu.free(tensor);
  }

  #alloc(name: string, shape: readonly number[], type: ElementType): Tensor {
    const tensor = this.#gpu.alloc(name, shape, type);
    this.#tensors.push(tensor);
    return tensor;
  }
}

/** x (rows, width) is uploaded in every run, as the peer's is. */
export async function openSide(
  gpu: Gpu,
  name: string,
  shape: readonly [number, number],
  prepare: (weights: Weights) => Promise<Forward>,
): Promise<Side> {
  const weights = new Weights(gpu);
  const forward = await prepare(weights);
  const x = gpu.alloc("x", shape, "f32");
  const bytes = randomBytesOf("f32", elementCount(shape), inputValues);
  const started = performance.now();
  const list = await gpu.record(name, (k) => forward(k, x));
  const read: Tensor = { ...placed(list.result), shape: [sampleSize] };
  const run = async (): Promise<{ milliseconds: number; sample: number[] }> => {
    const before = performance.now();
    await gpu.upload(x, bytes);
    const [sample = new ArrayBuffer(0)] = await gpu.submit([list], { reads: [read] });
    return { milliseconds: performance.now() - before, sample: [...new Float32Array(sample)] };
  };
  const { sample } = await run();
  const first = performance.now() - started;
  return {
    first,
    sample,
    run: async () => (await run()).milliseconds,
    async close() {
      list.destroy();
      gpu.free(x);
      weights.free();
    },
  };
}

/** What a tensor is, now that it has a buffer. */
function placed({ name, shape, type, storage, byteOffset }: Tensor): Tensor {
  return { name, shape, type, storage, byteOffset };
}

export function linearForward(shape: LinearShape, type: Type) {
  return async (weights: Weights): Promise<Forward> => {
    const linear = await weights.linear(shape, type);
    return (k, x) => matmul(k, x, linear);
  };
}

export function quantizedForward(shape: LinearShape, type: Quantized) {
  return async (weights: Weights): Promise<Forward> => {
    const linear = await weights.quantized(shape, type);
    return (k, x) => matmul(k, x, linear);
  };
}

export function normForward(width: number, repeats: number) {
  return async (weights: Weights): Promise<Forward> => {
    const norms: Norm[] = [];
    for (let i = 0; i < repeats; i++) norms.push(await weights.norm(width, seeds.norm + 10 * i));
    return (k, x) => norms.reduce((given, norm) => layerNorm(k, given, norm), x);
  };
}

/** x are the queries; keys and values stay the same. */
export function attentionForward({ queryTokens, keyTokens, heads, headWidth }: AttentionShape, repeats: number) {
  return async (weights: Weights): Promise<Forward> => {
    const shape = [keyTokens, heads * headWidth];
    const keys = await weights.tensor("keys", shape, { seed: seeds.keys, scale: keyScale, mean: decodeMean });
    const values = await weights.tensor("values", shape, { seed: seeds.values, scale: 1, mean: decodeMean });
    const sizes = { batch: 1, queryTokens, keyTokens, heads, headWidth, scale: headWidth ** -0.5 };
    const all = (rows: Tensor) => ({ rows, column: 0 });
    return (k, x) => {
      let y = x;
      for (let i = 0; i < repeats; i++) y = attention(k, all(y), all(keys), all(values), sizes);
      return y;
    };
  };
}

/** One query behind `keyTokens` cached positions, keys and values in f16. */
export function decodeAttentionForward({ keyTokens, heads, headWidth }: AttentionShape, repeats: number) {
  return async (weights: Weights): Promise<Forward> => {
    const rows = await cachedRows(weights, { sequences: 1, cached: keyTokens - 1, width: heads * headWidth });
    const [cache] = rows.cache;
    return (k, x) => {
      let y = x;
      for (let i = 0; i < repeats && cache; i++) {
        y = cachedAttention(k, y, cache, rows.table, rows.cursors, heads, headWidth ** -0.5);
      }
      return y;
    };
  };
}

export function vitLayerForward({ tokens, width, heads, linears }: VitShape, type: Type) {
  return async (weights: Weights): Promise<Forward> => {
    const layer = {
      norm1: await weights.norm(width, seeds.norm),
      norm2: await weights.norm(width, seeds.norm + 10),
      qkv: await weights.linear(linears.qkv, type),
      projection: await weights.linear(linears.projection, type),
      fc1: await weights.linear(linears.fc1, type),
      fc2: await weights.linear(linears.fc2, type),
    };
    // The patch size plays no part in a block.
    return (k, x) => vitBlock(k, layer, x, { batch: (x.shape[0] ?? 0) / tokens, heads, patchSize: 1 });
  };
}

/**
 * A whole vision tower: patches of `patchSize`, `layers` blocks that share `sets` sets of weights in turn, final norm. x are pixels
 * (images, 3 * side * side).
 */
export function vitTowerForward(
  { tokens, width, heads, linears }: VitShape,
  type: Type,
  { layers, sets, patchSize }: { readonly layers: number; readonly sets: number; readonly patchSize: number },
) {
  return async (weights: Weights): Promise<Forward> => {
    const made: VitLayer[] = [];
    for (let set = 0; set < sets; set++) {
      made.push({
        norm1: await weights.norm(width, seeds.norm),
        norm2: await weights.norm(width, seeds.norm + 10),
        qkv: await weights.linear(linears.qkv, type),
        projection: await weights.linear(linears.projection, type),
        fc1: await weights.linear(linears.fc1, type),
        fc2: await weights.linear(linears.fc2, type),
      });
    }
    const tower: VitWeights = {
      classEmbedding: await weights.tensor("class", [width], { seed: 90, scale: 1 }),
      positions: await weights.tensor("positions", [tokens, width], { seed: 91, scale: 1 }),
      patches: await weights.linear({ inputs: 3 * patchSize ** 2, columns: width, seed: 92 }, type),
      layers: Array.from({ length: layers }, (_, i) => made[i % sets] as VitLayer),
      norm: await weights.norm(width, seeds.norm + 20),
    };
    const side = patchSize * Math.sqrt(tokens - 1);
    return (k, x) => {
      const batch = x.shape[0] ?? 0;
      return encodeImage(k, tower, view(x, [batch, 3, side, side]), { batch, heads, patchSize });
    };
  };
}

/** One new token for each of `batch` sequences, one block; all have `cached` positions before it. */
export function optLayerForward(shape: OptShape, batch: number) {
  return async (weights: Weights): Promise<Forward> => {
    const model = await optModel(weights, shape, 1);
    const rows = await cachedRows(weights, { sequences: batch, cached: shape.cached, width: shape.width });
    const block = model.tokenParts[1];
    return (k, x) => block?.run(k, x, rows) ?? x;
  };
}

/** A whole step of a model with so many blocks: embeddings, blocks, final norm, head; x plays no part. */
export function optStepForward(shape: OptShape, layers: number) {
  return async (weights: Weights): Promise<Forward> => {
    const model = await optModel(weights, shape, layers);
    const rows = await cachedRows(weights, { sequences: 1, cached: shape.cached, width: shape.width });
    const [cache] = rows.cache;
    const all = cache === undefined ? [] : new Array<typeof cache>(layers).fill(cache);
    return (k) => model.readTokens(k, { ...rows, cache: all });
  };
}

/** Blocks share one set of weights, of `type`; the head is f16 in any case, as loaded models have it. */
export async function optModel(
  weights: Weights,
  shape: OptShape,
  layers: number,
  {
    vocabulary = 64,
    queries = 0,
    type = "f16",
  }: { readonly vocabulary?: number; readonly queries?: number; readonly type?: "f16" | Quantized } = {},
): Promise<LanguageModel> {
  const { width, heads, ffnWidth, linears, cached } = shape;
  const made = (given: LinearShape) => (type === "f16" ? weights.linear(given, type) : weights.quantized(given, type));
  const linear = (name: keyof OptShape["linears"]) => made(linears[name]);
  const { query, key, value } = linears;
  const layer: OptLayer = {
    attentionNorm: await weights.norm(width, seeds.norm),
    mlpNorm: await weights.norm(width, seeds.norm + 10),
    qkv: await (type === "f16" ? weights.stacked([query, key, value], type) : made({ ...query, columns: 3 * width })),
    out: await linear("out"),
    fc1: await linear("fc1"),
    fc2: await linear("fc2"),
  };
  const head = await weights.linear({ inputs: width, columns: vocabulary, seed: 70 }, "f16");
  const positions = await weights.tensor("positions", [cached + 3, width], { seed: 80, scale: 1 }, "f16");
  const norm = await weights.norm(width, seeds.norm + 20);
  const config = { vocabulary, width, layers, heads, ffnWidth, maxPositions: cached + 1 };
  return optLanguageModel(
    { head: { ...head, bias: null }, positions, layers: new Array(layers).fill(layer), norm },
    { ...config, normEps: seeds.eps, bosId: 0, stopIds: [] },
    { queries, imageId: 1, cacheType: "f16" },
  );
}

/** One row for each of some sequences, at position `cached`, every sequence with keys and values of its own. */
async function cachedRows(
  weights: Weights,
  { sequences, cached, width }: { sequences: number; cached: number; width: number },
): Promise<SequenceRows> {
  const positions = cached + 1;
  const shape = [sequences * positions, width];
  const slots = Array.from({ length: sequences * positions }, (_, i) => i);
  const places = Array.from({ length: sequences }, (_, s) => [0, cached, s * positions + cached, s]);
  return {
    cursors: await weights.integers("cursors", [sequences, 4], places.flat()),
    table: await weights.integers("table", [sequences, positions], slots),
    cache: [
      {
        keys: await weights.tensor("keys", shape, { seed: seeds.keys, scale: keyScale, mean: decodeMean }, "f16"),
        values: await weights.tensor("values", shape, { seed: seeds.values, scale: 1, mean: decodeMean }, "f16"),
      },
    ],
  };
}
