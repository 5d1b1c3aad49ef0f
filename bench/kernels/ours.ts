// Our side of a comparison: random weights on the GPU, and a recorded list over them.

import type { Gpu } from "../../src/gpu/device.ts";
import type { Recorder } from "../../src/gpu/recorder.ts";
import { elementCount, type Tensor } from "../../src/gpu/tensor.ts";
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
import { type RandomValues, randomBytesOf } from "./random-values.ts";
import {
  type AttentionShape,
  decodeMean,
  inputValues,
  keyScale,
  type LinearShape,
  type OptShape,
  seeds,
  type VitShape,
} from "./shapes.ts";

type Type = "f32" | "f16";

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

  async norm(width: number, seed: number): Promise<Norm> {
    const gain = await this.tensor("gain", [width], { seed, scale: seeds.gainScale, mean: 1 });
    const bias = await this.tensor("bias", [width], { seed: seed + 1, scale: seeds.biasScale });
    return { gain, bias, eps: seeds.eps };
  }

  free(): void {
    for (const tensor of this.#tensors.splice(0)) this.#gpu.free(tensor);
  }

  #alloc(name: string, shape: readonly number[], type: Type | "u32"): Tensor {
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

/** Blocks share one set of weights. */
export async function optModel(
  weights: Weights,
  shape: OptShape,
  layers: number,
  { vocabulary = 64, queries = 0 }: { readonly vocabulary?: number; readonly queries?: number } = {},
): Promise<LanguageModel> {
  const { width, heads, ffnWidth, linears, cached } = shape;
  const linear = (name: keyof OptShape["linears"]) => weights.linear(linears[name], "f16");
  const layer: OptLayer = {
    attentionNorm: await weights.norm(width, seeds.norm),
    mlpNorm: await weights.norm(width, seeds.norm + 10),
    qkv: await weights.stacked([linears.query, linears.key, linears.value], "f16"),
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
