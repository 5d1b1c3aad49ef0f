// What the tests of matmul's GPU shaders share: each of them is launched alone, and asked the same questions.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Recorder } from "../../src/gpu/recorder.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import { matmul } from "../../src/kernels/matmul.ts";
import type { MatmulLaunch } from "../../src/kernels/matmul-launch.ts";
import type { Segment } from "../../src/kernels/weights.ts";
import { type MatmulCase, matmulReference } from "../reference/matmul.ts";
import { dequantizeReference, packedWords, packReference, quantizeReference } from "../reference/quantize-weight.ts";
import { asFamily } from "./families.ts";
import { expectClose, type Rig, randomValues, roundF16 } from "./harness.ts";

export const weightTypes = ["f32", "f16", "int8", "int4"] as const;
export type WeightType = (typeof weightTypes)[number];

/** What (inputs, columns) of these values becomes as weights of a type. */
export function asWeights(exact: Float32Array, inputs: number, columns: number, type: WeightType): Float32Array {
  if (type === "f32") return exact;
  if (type === "f16") return exact.map(roundF16);
  const whole = quantizeReference(exact, inputs, columns, type === "int8" ? 8 : 4);
  return Float32Array.from(dequantizeReference(whole));
}

/** Columns [from, from + width) of a (inputs, columns) matrix; NaN in the padding, which must never be seen. */
export async function weightSegment(
  rig: Rig,
  weight: Float32Array,
  inputs: number,
  columns: number,
  from: number,
  width: number,
  type: WeightType,
): Promise<Segment> {
  const stride = Math.ceil(width / 4) * 4;
  const padded = new Float32Array(inputs * stride).fill(Number.NaN);
  for (let k = 0; k < inputs; k++) {
    for (let c = 0; c < width; c++) padded[k * stride + c] = weight[k * columns + from + c] ?? Number.NaN;
  }
  const values = type === "int8" || type === "int4" ? packed(padded, inputs, stride, width, type) : padded;
  return { weight: await rig.tensor(`weight ${from}`, [inputs, stride], values, type), from, width };
}

/** Weights that are whole numbers and scales already, as words; a scale of the padding is NaN. */
function packed(
  padded: Float32Array,
  inputs: number,
  stride: number,
  width: number,
  type: "int8" | "int4",
): Uint32Array {
  const bits = type === "int8" ? 8 : 4;
  const words = new Uint32Array(packedWords(inputs, stride, bits)).fill(0x7fc07fc0);
  const values = padded.filter((_, i) => i % stride < width);
  packReference(quantizeReference(values, inputs, width, bits), stride, { into: words });
  return words;
}

/** One shader with one tile. */
export type LaunchForm = (k: Recorder, given: MatmulLaunch) => void;

/** matmul.wgsl with the tiles for CPU drivers: x·W + b into y. */
export const registerForm: LaunchForm = (k, { x, weight, bias, y }) => {
  const [[inputs = 0], columns] = [weight.shape, y.shape[1] ?? 0];
  const linear = { segments: [{ weight, from: 0, width: columns }], bias, inputs, columns };
  const own: typeof k = { ...k, scratch: () => y, launch: k.launch.bind(k) };
  matmul(asFamily(own, true), x, linear);
};

export interface Options {
  readonly bias?: boolean;
  readonly factor?: boolean;
  readonly residual?: boolean;
  readonly residualScale?: number;
  readonly activation?: keyof typeof activations;
  /** Where further segments of the columns begin. */
  readonly splits?: readonly number[];
}

/** As the shaders number them. */
const activations = { none: 0, gelu: 1, relu: 2, "quick gelu": 3, "tanh gelu": 4, silu: 5 } as const;

export interface Made {
  readonly reference: MatmulCase;
  readonly x: Tensor;
  /** Launch every segment. */
  run(k: Recorder, launch: LaunchForm, x?: Tensor): Tensor;
}

/** Random values; what pads the weights' columns is NaN, which must never be seen. */
export async function makeMatmul(
  rig: Rig,
  [rows, inputs, columns]: readonly [number, number, number],
  type: WeightType,
  options: Options = {},
): Promise<Made> {
  const exact = randomValues(inputs * columns, 2);
  const values = {
    x: randomValues(rows * inputs, 1),
    weight: asWeights(exact, inputs, columns, type),
    bias: options.bias ? randomValues(columns, 3) : undefined,
    residual: options.residual ? randomValues(rows * columns, 4) : undefined,
    factor: options.factor ? randomValues(rows * columns, 5) : undefined,
  };
  return placeMatmul(rig, [rows, inputs, columns], type, values, options);
}

export async function placeMatmul(
  rig: Rig,
  [rows, inputs, columns]: readonly [number, number, number],
  type: WeightType,
  values: Pick<MatmulCase, "x" | "weight" | "bias" | "factor" | "residual">,
  { activation = "none", residualScale = 1, splits = [] }: Options = {},
): Promise<Made> {
  const starts = [0, ...splits];
  const segments: Segment[] = [];
  for (const [i, from] of starts.entries()) {
    const width = (starts[i + 1] ?? columns) - from;
    segments.push(await weightSegment(rig, Float32Array.from(values.weight), inputs, columns, from, width, type));
  }
  const optional = async (name: "bias" | "factor" | "residual") =>
    values[name] && rig.tensor(name, name === "bias" ? [columns] : [rows, columns], values[name]);
  const [bias, factor, residual] = [await optional("bias"), await optional("factor"), await optional("residual")];
  const given = await rig.tensor("x", [rows, inputs], values.x);
  const round = type === "f32" ? (value: number) => value : roundF16;
  return {
    reference: { rows, inputs, columns, ...values, activation, residualScale, round },
    x: given,
    run(k, launch, x = given) {
      const y = k.scratch("y", [x.shape[0] ?? 0, columns]);
      const common = { x, bias: bias ?? null, factor, residual, y, residualScale, activation: activations[activation] };
      for (const { weight, from, width } of segments) launch(k, { ...common, weight, firstColumn: from, width });
      return y;
    },
  };
}

/** A sum in f32 of `inputs` terms in [-1, 1], in whatever order. */
export function sumTolerance(inputs: number) {
  return { absolute: (inputs + 4) * 2 ** -23, relative: 2 ** -21, reason: `f32 sum of ${inputs} terms` };
}

/** Rows and inputs of the models, and what lies beside every edge; columns that no tile divides. */
export const awkwardShapes = [
  [1, 1, 1],
  [1, 88, 5],
  [1, 1408, 70],
  [2, 33, 257],
  [2, 588, 64],
  [5, 7, 33],
  [5, 1408, 17],
  [8, 64, 130],
  [31, 588, 17],
  [32, 88, 127],
  [33, 5, 257],
  [33, 1408, 20],
  [257, 88, 100],
] as const;

/** Every part of the epilogue; a driver compiles each for up to a second. */
const epilogues = [
  { bias: true, factor: true, residual: true, residualScale: 7.5, activation: "gelu" },
  { residual: true, activation: "relu" },
  { bias: true, activation: "quick gelu" },
  { bias: true, activation: "tanh gelu" },
  { bias: true, activation: "silu" },
] as const;

/** Values of every size, so that no activation hides behind another. */
const small = [1e-8, -1e-8, 1e-4, -1e-4, 0, 40, -40, 1000, -1000];
const biases = Float32Array.from([...Array.from({ length: 801 }, (_, i) => (i - 400) / 40), ...small]);

/** The questions that every form must answer, in these shapes. */
export function testForm(
  rig: Rig,
  name: string,
  launch: LaunchForm,
  {
    type,
    shapes,
    largest,
  }: { type: WeightType; shapes: readonly (readonly [number, number, number])[]; largest: number },
): void {
  for (const shape of shapes) {
    test(`(${shape.join(", ")}), ${name}`, async () => {
      const made = await makeMatmul(rig, shape, type, { bias: true });
      const [y] = await rig.run((k) => [made.run(k, launch)]);
      expectClose(y, matmulReference(made.reference), sumTolerance(shape[1]));
    });
  }

  test(`segments equal the whole matrix, ${name}`, async () => {
    const shape = [Math.min(11, largest), 29, 61] as const;
    const whole = await makeMatmul(rig, shape, type, { bias: true });
    const split = await makeMatmul(rig, shape, type, { bias: true, splits: [8, 48] });
    const [one] = await rig.run((k) => [whole.run(k, launch)]);
    const [three] = await rig.run((k) => [split.run(k, launch)]);
    assert.deepEqual(three, one);
  });

  // Read singly, and four at a time.
  for (const inputs of [301, 300]) {
    test(`a row's bits do not depend on the other rows, ${inputs} inputs, ${name}`, async () => {
      const rows = Math.min(67, largest);
      const made = await makeMatmul(rig, [rows, inputs, 45], type, { bias: true });
      const [all] = await rig.run((k) => [made.run(k, launch)]);
      assert.ok(all);
      for (const [from, count] of [
        [0, 1],
        [rows - 1, 1],
        [2, 3],
        [1, 6],
        [rows >> 1, rows - (rows >> 1)],
      ] as const) {
        const part = Array.from(made.reference.x).slice(from * inputs, (from + count) * inputs);
        const x = await rig.tensor("part", [count, inputs], part);
        const [y] = await rig.run((k) => [made.run(k, launch, x)]);
        assert.deepEqual(y, all.slice(from * 45, (from + count) * 45), `rows ${from} to ${from + count - 1}`);
      }
    });
  }
}

/** What comes after the sum, which is the same for every tile. */
export function testEpilogue(rig: Rig, launch: LaunchForm, type: WeightType): void {
  for (const options of epilogues) {
    test(`epilogue ${JSON.stringify(options)}, ${type} weights`, async () => {
      const made = await makeMatmul(rig, [3, 6, 37], type, options);
      const [y] = await rig.run((k) => [made.run(k, launch)]);
      expectClose(y, matmulReference(made.reference), sumTolerance(6));
      // One row whose sums are the biases, or the residuals without one.
      const columns = biases.length;
      const ones = new Float32Array(columns).fill(1);
      const values = {
        x: [0],
        weight: new Float32Array(columns),
        ...("bias" in options && { bias: biases }),
        ...("factor" in options && { factor: ones }),
        ...("residual" in options && { residual: new Float32Array(columns) }),
      };
      const swept = await placeMatmul(rig, [1, 1, columns], type, values, options);
      const [activated] = await rig.run((k) => [swept.run(k, launch)]);
      const reason = "the last place of the largest value beside 0, and exp's few";
      expectClose(activated, matmulReference(swept.reference), { absolute: 3e-7, relative: 2 ** -23, reason });
    });
  }
}

/** f16 weights: how x and they are read. */
export function testHalves(rig: Rig, launch: LaunchForm): void {
  test("every x is rounded to the nearest f16, ties to even, above 65504 to inf", async () => {
    const values = [...roundedExactly, 65520, -65520, 1e10, -1e30, Number.POSITIVE_INFINITY];
    // One x in a row, and one with three beside it that count nothing.
    for (const inputs of [1, 4]) {
      const bias = [0];
      for (const value of values) {
        const given = { x: [value, 0, 0, 0].slice(0, inputs), weight: new Array(inputs).fill(1), bias };
        const made = await placeMatmul(rig, [1, inputs, 1], "f16", given);
        const [y] = await rig.run((k) => [made.run(k, launch)]);
        assert.deepEqual([...(y ?? [])], [roundF16(value) + 0], `${value}`);
      }
    }
    const made = await placeMatmul(rig, [values.length, 1, 1], "f16", { x: values, weight: [1], bias: [0] });
    const [y] = await rig.run((k) => [made.run(k, launch)]);
    assert.deepEqual(
      [...(y ?? [])],
      values.map((value) => roundF16(value) + 0),
    );
  });

  test("weights may be denormal", async () => {
    const weight = Float32Array.of(2 ** -24, -3 * 2 ** -24, 2 ** -14 - 2 ** -24, 65504);
    const made = await placeMatmul(rig, [1, 1, 4], "f16", { x: [2], weight, bias: new Float32Array(4) });
    const [y] = await rig.run((k) => [made.run(k, launch)]);
    assert.deepEqual(
      [...(y ?? [])],
      [...weight].map((value) => 2 * value),
    );
  });
}

/** Ties, neighbours of ties, the largest, denormals. */
const roundedExactly = [
  1 + 2 ** -11,
  1 + 3 * 2 ** -11,
  1 + 2 ** -11 + 2 ** -20,
  -1 - 3 * 2 ** -11,
  65504,
  65519.99,
  2 ** -14 - 2 ** -26,
  2 ** -14,
  2 ** -24,
  2 ** -25,
  1.5 * 2 ** -24,
  2.5 * 2 ** -24,
  1.0001 * 2 ** -25,
  -3.5 * 2 ** -24,
  0.1,
  -1000.3,
  1e-30,
  0,
];
