// What `npm run bench:gpu` measures: kernels on weights that no cache holds, a whole vision tower, decoding.

import type { Gpu } from "../src/gpu/device.ts";
import { median } from "../src/gpu/median.ts";
import { RowScheduler } from "../src/gpu/scheduler.ts";
import { byteLength, elementCount, isPacked, type Tensor } from "../src/gpu/tensor.ts";
import { matmul } from "../src/kernels/matmul.ts";
import type { Linear, WeightType } from "../src/kernels/weights.ts";
import { generateProgram } from "../src/models/generate.ts";
import { defaultGeneration } from "../src/stages.ts";
import { attentionWork, productWork, type Type } from "./kernels/comparisons.ts";
import { leastMilliseconds, type MachineLimits, type Work } from "./kernels/limits.ts";
import {
  attentionForward,
  decodeAttentionForward,
  type Forward,
  normForward,
  optModel,
  vitTowerForward,
  Weights,
} from "./kernels/ours.ts";
import { randomBytesOf } from "./kernels/random-values.ts";
import { inputValues, type OptShape, type VitShape } from "./kernels/shapes.ts";

/** Models whose shapes are measured; smaller ones where only the bench itself is tried. */
export interface Sizes {
  readonly vit: VitShape;
  readonly vitLayers: number;
  readonly patchSize: number;
  readonly opt: OptShape;
  readonly optLayers: number;
  readonly vocabulary: number;
  readonly qFormer: { readonly queries: number; readonly width: number; readonly mlpWidth: number };
  readonly t5: { readonly width: number; readonly ffnWidth: number };
  readonly cached: readonly number[];
  readonly batches: readonly number[];
  /** New tokens of the longer and the shorter run whose difference counts. */
  readonly newTokens: readonly [number, number];
  /** Bytes of weights that a kernel walks through before it meets the same ones again: more than caches hold. */
  readonly coldBytes: number;
}

/** One line of the report. */
export interface GpuRow {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly teraflops?: number;
  readonly gigabytes?: number;
  /** Of the copy's bytes per second. */
  readonly ofBandwidth?: number;
  /** The least time that the limits allow, as a part of what it took. */
  readonly ofLimit?: number;
}

/** Something to measure when its turn comes. */
export interface GpuCase {
  readonly name: string;
  measure(context: Context): Promise<GpuRow>;
}

export interface Context {
  readonly gpu: Gpu;
  readonly limits: MachineLimits;
  /** Of one case, about. */
  readonly seconds: number;
}

/** Submits are about so long: what starts and ends them then counts little. */
const submitMilliseconds = 30;
const mostRuns = 400;

/**
 * Milliseconds of one run of a recorded list, the median of submits of several. Each run writes what the one before wrote, so
 * that they follow one another.
 */
async function millisecondsOf(
  { gpu, seconds }: Context,
  shape: readonly [number, number],
  prepare: (weights: Weights) => Promise<Forward>,
): Promise<number> {
  const weights = new Weights(gpu);
  const x = gpu.alloc("x", shape, "f32");
  try {
    const forward = await prepare(weights);
    await gpu.upload(x, randomBytesOf("f32", elementCount(shape), inputValues));
    const list = await gpu.record("bench", (k) => forward(k, x));
    try {
      const { name, type, storage, byteOffset } = list.result;
      const read: Tensor = { name, type, storage, byteOffset, shape: [4] };
      const timed = async (runs: number) => {
        const started = performance.now();
        await gpu.submit(new Array(runs).fill(list), { reads: [read] });
        return (performance.now() - started) / runs;
      };
      await timed(1);
      const once = await timed(1);
      const runs = Math.max(1, Math.min(mostRuns, Math.round(submitMilliseconds / once)));
      const times: number[] = [];
      const end = performance.now() + 1000 * seconds;
      while (times.length < 3 || (times.length < 20 && performance.now() < end)) times.push(await timed(runs));
      return median(times);
    } finally {
      list.destroy();
    }
  } finally {
    weights.free();
    gpu.free(x);
  }
}

/** A chain of tiny dispatches, each of which reads what the one before wrote. */
export function dispatchGap(): GpuCase {
  const chain = 64;
  return {
    name: "dependent tiny dispatch",
    async measure(context) {
      const milliseconds = await millisecondsOf(context, [1, 64], normForward(64, chain));
      return { name: this.name, value: (1000 * milliseconds) / chain, unit: "µs" };
    },
  };
}

function kernel(
  name: string,
  work: Work,
  shape: readonly [number, number],
  prepare: (weights: Weights) => Promise<Forward>,
  repeats: number,
): GpuCase {
  return {
    name,
    async measure(context) {
      const value = (await millisecondsOf(context, shape, prepare)) / repeats;
      return {
        ...{ name, value, unit: "ms" },
        teraflops: work.flops / value / 1e9,
        gigabytes: work.bytes / value / 1e6,
        ofBandwidth: (1000 * work.bytes) / value / context.limits.bytesPerSecond,
        ofLimit: leastMilliseconds(work, context.limits) / value,
      };
    },
  };
}

/** A product over as many copies of its weights as no cache holds. */
function product(
  name: string,
  type: WeightType,
  rows: number,
  inputs: number,
  columns: number,
  coldBytes: number,
): GpuCase {
  const bytes = byteLength([inputs, columns], type);
  const copies = Math.max(1, Math.ceil(coldBytes / bytes));
  const prepare = async (weights: Weights): Promise<Forward> => {
    const linears: Linear[] = [];
    if (isPacked(type)) linears.push(...(await weights.quantizedCopies({ inputs, columns, seed: 10 }, type, copies)));
    else for (let i = 0; i < copies; i++) linears.push(await weights.linear({ inputs, columns, seed: 10 + i }, type));
    return (k, x) => linears.map((linear) => matmul(k, x, linear)).at(-1) ?? x;
  };
  const work = productWork(type, rows, inputs, columns);
  return kernel(`${name} ${type} ${rows}x${inputs}x${columns}`, work, [rows, inputs], prepare, copies);
}

/** Products, attention and norms at the shapes of the models. */
export function kernelCases(sizes: Sizes, types: readonly Type[]): GpuCase[] {
  const { vit, opt, qFormer, t5, vocabulary, coldBytes } = sizes;
  const width = vit.width;
  const mlpWidth = vit.linears.fc1.columns;
  const vitProducts = [
    [width, 3 * width],
    [width, width],
    [width, mlpWidth],
    [mlpWidth, width],
  ] as const;
  const optBlock = [
    [opt.width, 3 * opt.width],
    [opt.width, opt.width],
    [opt.width, opt.ffnWidth],
    [opt.ffnWidth, opt.width],
  ] as const;
  const head = [opt.width, vocabulary] as const;
  const optProducts = (type: WeightType, shapes: readonly (readonly [number, number])[]) =>
    sizes.batches.flatMap((rows) =>
      shapes.map(([inputs, columns]) => product("opt-2.7b", type, rows, inputs, columns, coldBytes)),
    );
  const attended = (name: string, tokens: number, keyTokens: number, heads: number, headWidth: number) => {
    const shape = { queryTokens: tokens, keyTokens, heads, headWidth };
    const prepare = attentionForward(shape, 1);
    return kernel(name, attentionWork(shape, "f32"), [tokens, heads * headWidth], prepare, 1);
  };
  const chain = 8;
  const normed = (rows: number, normWidth: number) => {
    const work = { flops: 8 * rows * normWidth, bytes: 8 * rows * normWidth };
    return kernel(`layer norm ${rows}x${normWidth}`, work, [rows, normWidth], normForward(normWidth, chain), chain);
  };
  return types
    .flatMap((type) => [
      ...[1, 8].flatMap((images) =>
        vitProducts.map(([inputs, columns]) => product("vit-g", type, images * vit.tokens, inputs, columns, coldBytes)),
      ),
      ...[
        [qFormer.width, qFormer.width],
        [qFormer.width, qFormer.mlpWidth],
        [qFormer.mlpWidth, qFormer.width],
      ].map(([inputs = 0, columns = 0]) => product("q-former", type, qFormer.queries, inputs, columns, coldBytes)),
      product("q-former keys", type, vit.tokens, width, qFormer.width, coldBytes),
      ...optProducts(type, [...optBlock, head]),
      ...[
        [t5.width, t5.width],
        [t5.width, t5.ffnWidth],
        [t5.ffnWidth, t5.width],
      ].map(([inputs = 0, columns = 0]) => product("t5-xl", type, 1, inputs, columns, coldBytes)),
    ])
    .concat([
      // The head keeps f16 under both.
      ...(["int8", "int4"] as const).flatMap((type) => optProducts(type, optBlock)),
      attended(`attention vit-g ${vit.tokens}x${vit.heads}`, vit.tokens, vit.tokens, vit.heads, width / vit.heads),
      ...sizes.cached.map((keyTokens) => {
        const shape = { queryTokens: 1, keyTokens, heads: opt.heads, headWidth: opt.width / opt.heads };
        const prepare = decodeAttentionForward(shape, chain);
        return kernel(
          `attention decode cache ${keyTokens}`,
          attentionWork(shape, "f16"),
          [1, opt.width],
          prepare,
          chain,
        );
      }),
      normed(vit.tokens, width),
      normed(1, opt.width),
    ]);
}

/** Sets of weights that the blocks of the tower take in turn; together more than caches hold. */
const towerSets = 4;

/** Whole vision towers, with patches and final norm. */
export function towerCases({ vit, vitLayers, patchSize, batches }: Sizes, type: Type): GpuCase[] {
  const side = patchSize * Math.sqrt(vit.tokens - 1);
  return batches.map((images) => ({
    name: `vit-g images, batch ${images}, ${type}`,
    async measure(context) {
      const prepare = vitTowerForward(vit, type, {
        layers: vitLayers,
        sets: Math.min(towerSets, vitLayers),
        patchSize,
      });
      const milliseconds = await millisecondsOf(context, [images, 3 * side * side], prepare);
      const { columns: mlpWidth } = vit.linears.fc1;
      const inLayer = 2 * vit.tokens * vit.width * (4 * vit.width + 2 * mlpWidth) + 4 * vit.tokens ** 2 * vit.width;
      return {
        ...{ name: this.name, value: (1000 * images) / milliseconds, unit: "images/s" },
        teraflops: (images * vitLayers * inLayer) / milliseconds / 1e9,
      };
    },
  }));
}

/** Greedy decoding behind a prompt, as jobs do it: from the scheduler to ids on the host. Blocks share one set of weights. */
export function decodeCases(sizes: Sizes, type: "f16" | "int8" | "int4"): GpuCase[] {
  const { opt, optLayers, vocabulary, qFormer, batches, newTokens } = sizes;
  const { width, ffnWidth } = opt;
  return batches.map((batch) => ({
    name: `opt-2.7b decode, batch ${batch}, ${type}`,
    async measure({ gpu, limits }) {
      const weights = new Weights(gpu);
      const program = generateProgram(
        gpu,
        await optModel(weights, opt, optLayers, { vocabulary, queries: qFormer.queries, type }),
      );
      try {
        const shape = [qFormer.queries, opt.width] as const;
        const bytes = randomBytesOf("f16", elementCount(shape), inputValues);
        const prompt = { kind: "prompt", type: "f16", shape, bytes } as const;
        const run = async (tokens: number) => {
          const generation = { ...defaultGeneration, minNewTokens: tokens, maxNewTokens: tokens };
          const scheduler = new RowScheduler();
          const started = performance.now();
          const row = { prompt, textIds: [2], generation };
          await Promise.all(Array.from({ length: batch }, () => scheduler.run(program, row)));
          const took = performance.now() - started;
          await scheduler.close("drain");
          return took;
        };
        const [many, few] = newTokens;
        await run(few);
        await run(many);
        const times = { many: [] as number[], few: [] as number[] };
        for (let round = 0; round < 3; round++) {
          times.many.push(await run(many));
          times.few.push(await run(few));
        }
        const step = (median(times.many) - median(times.few)) / (many - few);
        if (!(step > 0)) throw new Error(`expected ${many} tokens to take longer than ${few}, got other work's noise`);
        const inBlock = (
          [
            [width, 4 * width],
            [width, ffnWidth],
            [ffnWidth, width],
          ] as const
        )
          .map((shape) => byteLength(shape, type))
          .reduce((sum, bytes) => sum + bytes);
        const read = optLayers * inBlock + byteLength([width, vocabulary], "f16");
        return {
          ...{ name: this.name, value: (1000 * batch) / step, unit: "tokens/s" },
          gigabytes: read / step / 1e6,
          ofBandwidth: (1000 * read) / step / limits.bytesPerSecond,
        };
      } finally {
        program.close();
        weights.free();
      }
    },
  }));
}
