// What is compared: the products, attentions, norms and layers of BLIP-2 with ViT-g and OPT-2.7B, at their true sizes.

import type { Gpu } from "../../src/gpu/device.ts";
import { byteLength } from "../../src/gpu/tensor.ts";
import type { WeightType } from "../../src/kernels/weights.ts";
import { attentionForms, linearForms, normForms, optLayerForms, quantizedForms, vitLayerForms } from "./graphs.ts";
import type { Work } from "./limits.ts";
import type { Comparison } from "./measure.ts";
import {
  attentionForward,
  decodeAttentionForward,
  linearForward,
  normForward,
  openSide,
  optLayerForward,
  quantizedForward,
  vitLayerForward,
} from "./ours.ts";
import { type AttentionShape, type OptShape, optShape, type VitShape, vitShape } from "./shapes.ts";

export type Type = "f32" | "f16";

/** Runs of small kernels in a row, so that the call that starts them counts little. */
const chain = 8;

/** Sums of some thousand products of numbers about 1; f16 also rounds each factor, the peer's sums perhaps too. */
const tolerances = { f32: 1e-3, f16: 0.1 } as const;

/**
 * Means of values in [-0.5, 1.5): in f32 from scores of about 10; in f16 keys of up to 7 are rounded by 2^-9, and so are scores
 * by some thousandths, eight times in a row.
 */
const attentionTolerances = { f32: 2e-4, f16: 0.02 } as const;

const vitG = vitShape(257, 1408, 16, 6144);
export const opt27 = optShape(2560, 32, 10240, 256);
const qFormer = { queries: 32, width: 768, mlpWidth: 3072, heads: 12 };

/** Every comparison, in the order of the table. */
export function comparisons(gpu: Gpu): Comparison[] {
  const types = ["f32", "f16"] as const;
  const { tokens, width, heads } = vitG;
  const mlpWidth = vitG.linears.fc1.columns;
  const vitProducts = [
    [width, 3 * width],
    [width, mlpWidth],
    [mlpWidth, width],
  ] as const;
  const optProducts = [
    [opt27.width, 3 * opt27.width],
    [opt27.width, opt27.ffnWidth],
    [opt27.ffnWidth, opt27.width],
    [opt27.width, 50304],
  ] as const;
  const queryProducts = [
    [qFormer.queries, qFormer.width, qFormer.width],
    [qFormer.queries, qFormer.width, qFormer.mlpWidth],
    [qFormer.queries, qFormer.mlpWidth, qFormer.width],
    [tokens, width, qFormer.width],
  ] as const;
  return [
    ...types.flatMap((type) =>
      vitProducts.map(([inputs, columns]) => product(gpu, "matmul vit-g", type, tokens, inputs, columns)),
    ),
    ...types.flatMap((type) =>
      queryProducts.map(([rows, inputs, columns]) => product(gpu, "matmul q-former", type, rows, inputs, columns)),
    ),
    ...optProducts.map(([inputs, columns]) => product(gpu, "matvec opt-2.7b", "f16", 1, inputs, columns)),
    ...(["int8", "int4"] as const).flatMap((type) =>
      optProducts.map(([inputs, columns]) => quantized(gpu, "matvec opt-2.7b", type, inputs, columns)),
    ),
    attended(gpu, `attention ${tokens}x${heads}x${width / heads}`, {
      queryTokens: tokens,
      keyTokens: tokens,
      heads,
      headWidth: width / heads,
    }),
    attended(gpu, `attention q-former ${qFormer.queries}x${tokens}`, {
      queryTokens: qFormer.queries,
      keyTokens: tokens,
      heads: qFormer.heads,
      headWidth: qFormer.width / qFormer.heads,
    }),
    ...[64, 256, 1024].map((keyTokens) => decoding(gpu, keyTokens, opt27)),
    normed(gpu, tokens, width),
    normed(gpu, 1, opt27.width),
    ...types.map((type) => vitLayer(gpu, `layer vit-g ${type}`, vitG, type)),
    optLayer(gpu, "layer opt-2.7b f16", opt27),
  ];
}

/** x (rows, inputs) times a matrix, plus a bias. */
export function product(gpu: Gpu, what: string, type: Type, rows: number, inputs: number, columns: number): Comparison {
  const shape = { inputs, columns, seed: 10 };
  const name = `${what} ${type} ${rows === 1 ? "" : `${rows}x`}${inputs}x${columns}`;
  return {
    name,
    work: productWork(type, rows, inputs, columns),
    repeats: 1,
    ours: () => openSide(gpu, name, [rows, inputs], linearForward(shape, type)),
    forms: linearForms(rows, shape, type),
    tolerance: tolerances[type],
  };
}

/** One row times whole numbers with a scale for 32 inputs, plus a bias; the same numbers on both sides. */
export function quantized(gpu: Gpu, what: string, type: "int8" | "int4", inputs: number, columns: number): Comparison {
  const shape = { inputs, columns, seed: 10 };
  const name = `${what} ${type} ${inputs}x${columns}`;
  return {
    name,
    work: productWork(type, 1, inputs, columns),
    repeats: 1,
    ours: () => openSide(gpu, name, [1, inputs], quantizedForward(shape, type)),
    forms: quantizedForms(shape, type),
    tolerance: tolerances.f16,
  };
}

/** Queries over keys and values that stay the same; all f32 on our side. */
export function attended(gpu: Gpu, name: string, shape: AttentionShape): Comparison {
  const width = shape.heads * shape.headWidth;
  return {
    name,
    work: attentionWork(shape, "f32"),
    repeats: 1,
    ours: () => openSide(gpu, name, [shape.queryTokens, width], attentionForward(shape, 1)),
    forms: attentionForms(shape, 1, !gpu.softwareAdapter),
    tolerance: attentionTolerances.f32,
  };
}

/** One query behind a cache of keys and values in f16. */
export function decoding(gpu: Gpu, keyTokens: number, { heads, width }: OptShape): Comparison {
  const shape = { queryTokens: 1, keyTokens, heads, headWidth: width / heads };
  const name = `attention decode ${heads}x${shape.headWidth} cache ${keyTokens}`;
  return {
    name,
    work: attentionWork(shape, "f16"),
    repeats: chain,
    ours: () => openSide(gpu, name, [1, width], decodeAttentionForward(shape, chain)),
    forms: attentionForms(shape, chain, true),
    tolerance: attentionTolerances.f16,
  };
}

export function normed(gpu: Gpu, rows: number, width: number): Comparison {
  const name = `layer-norm ${rows}x${width}`;
  return {
    name,
    work: { flops: 8 * rows * width, bytes: 8 * rows * width },
    repeats: chain,
    ours: () => openSide(gpu, name, [rows, width], normForward(width, chain)),
    forms: normForms(rows, width, chain),
    tolerance: tolerances.f16,
  };
}

export function vitLayer(gpu: Gpu, name: string, shape: VitShape, type: Type): Comparison {
  const { tokens, width, heads, linears } = shape;
  const products = Object.values(linears).map(({ inputs, columns }) => productWork(type, tokens, inputs, columns));
  const headWidth = width / heads;
  const mixing = attentionWork({ queryTokens: tokens, keyTokens: tokens, heads, headWidth }, "f32");
  return {
    name,
    work: sumOf([...products, mixing]),
    repeats: 1,
    ours: () => openSide(gpu, name, [tokens, width], vitLayerForward(shape, type)),
    forms: vitLayerForms(shape, type, !gpu.softwareAdapter),
    tolerance: 5 * tolerances[type],
  };
}

/** One new token through one block. */
export function optLayer(gpu: Gpu, name: string, shape: OptShape): Comparison {
  return {
    name,
    work: optLayerWork(shape, 1),
    repeats: 1,
    ours: () => openSide(gpu, name, [1, shape.width], optLayerForward(shape, 1)),
    forms: optLayerForms(shape, "f16"),
    tolerance: 5 * tolerances.f16,
  };
}

function optLayerWork({ width, heads, cached, linears }: OptShape, batch: number): Work {
  const products = Object.values(linears).map(({ inputs, columns }) => productWork("f16", batch, inputs, columns));
  const shape = { queryTokens: 1, keyTokens: cached + 1, heads, headWidth: width / heads };
  return sumOf([...products, ...new Array<Work>(batch).fill(attentionWork(shape, "f16"))]);
}

export function productWork(type: WeightType, rows: number, inputs: number, columns: number): Work {
  const weightBytes = byteLength([inputs, columns], type);
  return { flops: 2 * rows * inputs * columns, bytes: weightBytes + 4 * rows * (inputs + columns) };
}

export function attentionWork({ queryTokens, keyTokens, heads, headWidth }: AttentionShape, keysIn: Type): Work {
  const width = heads * headWidth;
  const keyBytes = 2 * keyTokens * width * (keysIn === "f16" ? 2 : 4);
  return { flops: 4 * queryTokens * keyTokens * width, bytes: keyBytes + 8 * queryTokens * width };
}

function sumOf(works: readonly Work[]): Work {
  return {
    flops: works.reduce((sum, { flops }) => sum + flops, 0),
    bytes: works.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}
