// How many kernels one new token takes in a block of each decoder: every launch costs a GPU some microseconds at least.

import assert from "node:assert/strict";
import { test } from "node:test";
import { findAdapter } from "../../src/gpu/adapter.ts";
import type { Recorder } from "../../src/gpu/recorder.ts";
import type { ElementType, Tensor } from "../../src/gpu/tensor.ts";
import { fallbackTable } from "../../src/gpu/tuning-table.ts";
import { Variants } from "../../src/gpu/variants.ts";
import type { Linear } from "../../src/kernels/weights.ts";
import { glmLanguageModel } from "../../src/models/glm.ts";
import type { LanguageModel, SequenceRows } from "../../src/models/language-model.ts";
import { llamaLanguageModel } from "../../src/models/llama.ts";
import { optLanguageModel } from "../../src/models/opt.ts";
import { refuseNothing } from "../kernels/families.ts";

const { report } = await findAdapter(true);
const [width, heads, ffnWidth, vocabulary, positions, rows] = [64, 4, 128, 48, 16, 3];

function tensor(shape: readonly number[], type: ElementType = "f32"): Tensor {
  return { name: "tensor", shape, type, storage: undefined, byteOffset: 0 };
}

function linear(inputs: number, columns: number, bias = true): Linear {
  const weight = tensor([inputs, columns], "f16");
  return { segments: [{ weight, from: 0, width: columns }], bias: bias ? tensor([columns]) : null, inputs, columns };
}

const norm = { gain: tensor([width]), bias: tensor([width]), eps: 1e-5 };
const rmsNorm = { gain: tensor([width]), eps: 1e-5 };
const shared = { vocabulary, width, layers: 1, heads, maxPositions: positions, normEps: 1e-5, stopIds: [] };
const options = { queries: 0, imageId: 1, cacheType: "f16" } as const;

/** One kernel, whichever the adapter is. */
const attending = report.softwareAdapter ? "cached-attention-lanes" : "cached-attention";

/** The shaders that a block launches for `rows` sequences, in order. */
function launchesOf({ tokenParts }: LanguageModel): string[] {
  const launched: string[] = [];
  const k: Recorder = {
    softwareAdapter: report.softwareAdapter,
    variants: new Variants([fallbackTable(report.softwareAdapter)], report, refuseNothing),
    scratch: (_, shape, type) => tensor(shape, type),
    launch: (shader) => void launched.push(shader),
  };
  const cache = { keys: tensor([rows * positions, width], "f16"), values: tensor([rows * positions, width], "f16") };
  const state: SequenceRows = {
    cursors: tensor([rows, 4], "u32"),
    table: tensor([rows, positions], "u32"),
    contexts: tensor([rows], "u32"),
    cache: [cache],
  };
  tokenParts[1]?.run(k, tensor([rows, width]), state);
  return launched;
}

test("OPT: eight", () => {
  const layer = {
    attentionNorm: norm,
    qkv: linear(width, 3 * width),
    out: linear(width, width),
    mlpNorm: norm,
    fc1: linear(width, ffnWidth),
    fc2: linear(ffnWidth, width),
  };
  const head = linear(width, vocabulary, false);
  const weights = { head, positions: tensor([positions + 2, width]), layers: [layer], norm };
  const launched = launchesOf(optLanguageModel(weights, { ...shared, ffnWidth, bosId: 0 }, options));
  assert.deepEqual(launched, [
    "layer-norm",
    "matmul",
    "append-cache",
    attending,
    "matmul",
    "layer-norm",
    "matmul",
    "matmul",
  ]);
});

test("Llama: ten", () => {
  const layer = {
    attentionNorm: rmsNorm,
    qkv: linear(width, 3 * width, false),
    out: linear(width, width, false),
    mlpNorm: rmsNorm,
    gate: linear(width, ffnWidth, false),
    up: linear(width, ffnWidth, false),
    down: linear(ffnWidth, width, false),
  };
  const headWidth = width / heads;
  const turns = tensor([positions, headWidth]);
  const weights = { embeddings: linear(width, vocabulary, false), turns, layers: [layer], norm: rmsNorm };
  const config = { ...shared, ffnWidth, headWidth, rotaryBase: 10000, tied: true };
  const launched = launchesOf(llamaLanguageModel(weights, config, options));
  assert.deepEqual(launched, [
    "rms-norm",
    "matmul",
    "rotary",
    "append-cache",
    attending,
    "matmul",
    "rms-norm",
    "matmul",
    "matmul",
    "matmul",
  ]);
});

test("ChatGLM: ten", () => {
  const layer = {
    attentionNorm: norm,
    qkv: linear(width, 3 * width),
    out: linear(width, width),
    mlpNorm: norm,
    fc1: linear(width, ffnWidth),
    fc2: linear(ffnWidth, width),
  };
  const head = linear(width, vocabulary, false);
  const turns = tensor([positions, width / heads / 2]);
  const weights = { embeddings: head, head, turns, layers: [layer], norm };
  const launched = launchesOf(glmLanguageModel(weights, { ...shared, mlpWidth: ffnWidth }, options));
  assert.deepEqual(launched, [
    "layer-norm",
    "block-positions",
    "matmul",
    "rotary",
    "append-cache",
    attending,
    "matmul",
    "layer-norm",
    "matmul",
    "matmul",
  ]);
});
