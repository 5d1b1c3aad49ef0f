import assert from "node:assert/strict";
import { test } from "node:test";
import type { Recorder } from "../../src/gpu/recorder.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import { type Activation, matmul } from "../../src/kernels/matmul.ts";
import { matmulOperation } from "../../src/kernels/matmul-variants.ts";
import type { Linear, Segment } from "../../src/kernels/weights.ts";
import { type MatmulCase, matmulReference } from "../reference/matmul.ts";
import { dequantizeReference, packedWords, packReference } from "../reference/quantize-weight.ts";
import { asFamily, asVariant } from "./families.ts";
import { expectClose, openRig, randomValues, roundF16 } from "./harness.ts";
import { asWeights, registerForm, testHalves, type WeightType, weightSegment, weightTypes } from "./matmul-rig.ts";

const rig = await openRig();

const segment = (...[weight, inputs, columns, from, width, type]: SegmentOf) =>
  weightSegment(rig, weight, inputs, columns, from, width, type);
type SegmentOf = readonly [Float32Array, number, number, number, number, WeightType];

interface Made {
  readonly given: MatmulCase & { readonly x: Float32Array };
  readonly x: Tensor;
  readonly linear: Linear;
  readonly factor: Tensor | undefined;
  readonly residual: Tensor | undefined;
}

async function make(
  [rows, inputs, columns]: readonly [number, number, number],
  type: WeightType,
  options: {
    bias?: boolean;
    factor?: boolean;
    residual?: boolean;
    residualScale?: number;
    activation?: Activation;
    splits?: readonly number[];
  } = {},
): Promise<Made> {
  const x = randomValues(rows * inputs, 1);
  const exact = randomValues(inputs * columns, 2);
  const weight = asWeights(exact, inputs, columns, type);
  const bias = options.bias ? randomValues(columns, 3) : undefined;
  const residual = options.residual ? randomValues(rows * columns, 4) : undefined;
  const factor = options.factor ? randomValues(rows * columns, 5) : undefined;
  const starts = [0, ...(options.splits ?? [])];
  const segments: Segment[] = [];
  for (const [i, from] of starts.entries()) {
    segments.push(await segment(weight, inputs, columns, from, (starts[i + 1] ?? columns) - from, type));
  }
  const round = type === "f32" ? (value: number) => value : roundF16;
  return {
    given: {
      rows,
      inputs,
      columns,
      x,
      weight,
      bias,
      factor,
      residual,
      residualScale: options.residualScale,
      activation: options.activation ?? "none",
      round,
    },
    x: await rig.tensor("x", [rows, inputs], x),
    linear: { segments, bias: bias ? await rig.tensor("bias", [columns], bias) : null, inputs, columns },
    factor: factor ? await rig.tensor("factor", [rows, columns], factor) : undefined,
    residual: residual ? await rig.tensor("residual", [rows, columns], residual) : undefined,
  };
}

function multiply(k: Recorder, { x, linear, factor, residual, given }: Made): Tensor {
  const { activation = "none", residualScale } = given;
  return matmul(k, x, linear, {
    activation,
    ...(factor && { factor }),
    ...(residual && { residual }),
    ...(residualScale !== undefined && { residualScale }),
  });
}

/** matmul.wgsl with what CPU drivers take, and with a tile for GPUs, whose tables prefer shaders of their own. */
function asTiles(k: Recorder, softwareAdapter: boolean): Recorder {
  if (softwareAdapter) return asFamily(k, true);
  return asVariant(k, matmulOperation, { shader: "matmul", WORKGROUP: 64, ROWS: 8, VECS: 1, LANES: 1, STEPS: 1 });
}

/** As the tables say, but packed weights in a small tile: the large ones are compiled for seconds. */
function asSmallTile(k: Recorder, type: WeightType): Recorder {
  if (type === "f32" || type === "f16") return k;
  const LANES = Math.min(8, k.variants.report.subgroupMaxSize);
  return asVariant(k, matmulOperation, { shader: "matmul", WORKGROUP: 8, ROWS: 4, VECS: 1, LANES, STEPS: 1 });
}

/** A chain of `inputs` f32 roundings of a sum whose terms lie in [-1, 1]. */
function sumTolerance(inputs: number) {
  return { absolute: (inputs + 4) * 2 ** -23, relative: 2 ** -21, reason: `f32 sum of ${inputs} terms` };
}

const shapes = [
  [1, 1, 1],
  [1, 88, 5],
  [1, 33, 70],
  [2, 7, 33],
  [4, 3, 31],
  [5, 64, 32],
  [8, 13, 130],
  [9, 588, 17],
  [31, 33, 100],
  [33, 5, 257],
  [257, 88, 127],
] as const;

/** What follows the sums is the same code for all weights and tiles, and each combination is compiled for a second. */
const epilogues: readonly NonNullable<Parameters<typeof make>[2]>[] = [
  { bias: true, residual: true, activation: "gelu" },
  { bias: true, residual: true, activation: "relu" },
  { residual: true, activation: "relu" },
  { factor: true, activation: "gelu" },
  { bias: true, factor: true, residual: true, activation: "tanh gelu" },
  { bias: true, residual: true, activation: "quick gelu" },
  { factor: true, residual: true, activation: "silu" },
  { bias: true, residual: true, residualScale: 7.5 },
];

for (const type of weightTypes) {
  const isPacked = type === "int8" || type === "int4";
  const whole = isPacked ? ({ bias: true } as const) : ({ bias: true, activation: "gelu" } as const);
  for (const softwareAdapter of [true, false]) {
    const kind = `${type} weights, ${softwareAdapter ? "CPU" : "GPU"} tiles`;
    for (const shape of shapes) {
      test(`(${shape.join(", ")}), ${kind}`, async () => {
        const made = await make(shape, type, { bias: isPacked || shape[0] % 2 === 1 });
        const [y] = await rig.run((k) => [multiply(asTiles(k, softwareAdapter), made)]);
        expectClose(y, matmulReference(made.given), sumTolerance(shape[1]));
      });
    }

    for (const options of epilogues) {
      const isAll = options.bias === true && options.factor === true && options.residual === true;
      if (isPacked || (type === "f16" && !isAll)) continue;
      test(`epilogue ${JSON.stringify(options)}, ${kind}`, async () => {
        for (const rows of isAll ? [1, 3, 19] : [19]) {
          const made = await make([rows, 6, 37], type, options);
          const [y] = await rig.run((k) => [multiply(asTiles(k, softwareAdapter), made)]);
          expectClose(y, matmulReference(made.given), sumTolerance(6));
        }
      });
    }

    // Read singly, four at a time, and by as many invocations as lend to each other; f16 and f32, int8 and int4 go the same ways.
    for (const inputs of type === "f32" || type === "int4" ? [301, 300, 304] : [304]) {
      test(`a row's bits do not depend on the other rows, ${inputs} inputs, ${kind}`, async () => {
        const made = await make([67, inputs, 45], type, { bias: true });
        const [all] = await rig.run((k) => [multiply(asTiles(k, softwareAdapter), made)]);
        assert.ok(all);
        for (const [from, rows] of [
          [0, 1],
          [66, 1],
          [13, 3],
          [30, 8],
          [40, 26],
        ] as const) {
          const part = made.given.x.slice(from * inputs, (from + rows) * inputs);
          const x = await rig.tensor("part", [rows, inputs], part);
          const [y] = await rig.run((k) => [multiply(asTiles(k, softwareAdapter), { ...made, x })]);
          assert.deepEqual(y, all.slice(from * 45, (from + rows) * 45), `rows ${from} to ${from + rows - 1}`);
        }
      });
    }
  }

  for (const inputs of [130, 132, 136]) {
    test(`both families give the same bits, ${inputs} inputs, ${type} weights`, async () => {
      const made = await make([21, inputs, 50], type, { ...whole, residual: !isPacked });
      const [cpu, gpu] = await rig.run((k) => [multiply(asTiles(k, true), made), multiply(asTiles(k, false), made)]);
      assert.deepEqual(cpu, gpu);
    });
  }

  test(`inputs read four at a time give the bits of inputs read singly, ${type} weights`, async () => {
    const [rows, inputs, columns] = [9, 132, 50];
    const { x, linear, given } = await make([rows, inputs, columns], type, { bias: isPacked });
    // One input more, which counts nothing, and changes no scale of whole numbers.
    const added = type === "f32" || type === "f16" ? 1 : 0;
    const wider = Float32Array.from({ length: rows * (inputs + 1) }, (_, i) => {
      const [row, k] = [Math.floor(i / (inputs + 1)), i % (inputs + 1)];
      return k === inputs ? 0 : (given.x[row * inputs + k] ?? 0);
    });
    const weight = Float32Array.from([...Array.from(given.weight), ...new Array<number>(columns).fill(added)]);
    const segments = [await segment(weight, inputs + 1, columns, 0, columns, type)];
    const xs = await rig.tensor("x", [rows, inputs + 1], wider);
    const [fours, singly] = await rig.run((recorder) => {
      const k = asSmallTile(recorder, type);
      return [matmul(k, x, linear), matmul(k, xs, { ...linear, segments, inputs: inputs + 1 })];
    });
    assert.deepEqual(fours, singly);
  });

  if (isPacked) {
    test(`x rounded to f16 times ${type} weights has the bits of f32 weights of the same values`, async () => {
      for (const [rows, inputs] of [
        [1, 45],
        [1, 96],
        [11, 72],
        [11, 37],
      ] as const) {
        const { given, x, linear } = await make([rows, inputs, 38], type, { bias: true });
        const rounded = await rig.tensor("rounded", [rows, inputs], given.x.map(roundF16));
        const weight = await segment(Float32Array.from(given.weight), inputs, 38, 0, 38, "f32");
        const [own, same] = await rig.run((k) => [
          matmul(asSmallTile(k, type), x, linear),
          matmul(k, rounded, { ...linear, segments: [weight] }),
        ]);
        assert.deepEqual(own, same, `${rows} rows of ${inputs}`);
      }
    });
  }

  test(`a matrix in three segments equals the whole one, ${type} weights`, async () => {
    const options = { ...whole, residual: !isPacked };
    for (const rows of [1, 11]) {
      const whole = await make([rows, 29, 61], type, options);
      const split = await make([rows, 29, 61], type, { ...options, splits: [8, 48] });
      const [one] = await rig.run((k) => [multiply(k, whole)]);
      const [three] = await rig.run((k) => [multiply(k, split)]);
      assert.deepEqual(three, one);
      expectClose(one, matmulReference(whole.given), sumTolerance(29));
    }
  });

  if (!isPacked) {
    test(`more workgroups than one dimension holds, ${type} weights`, async () => {
      const rows = 65535 * 8 + 11;
      const made = await make([rows, 1, 1], type, { bias: true });
      const [y] = await rig.run((k) => [multiply(k, made)]);
      expectClose(y, matmulReference(made.given), sumTolerance(1));
    });
  }
}

/** One activation over values of every size, against the reference. */
async function compareActivation(activation: "gelu" | "quick gelu" | "tanh gelu" | "silu"): Promise<void> {
  const x = Float32Array.from({ length: 4001 }, (_, i) => (i - 2000) / 200);
  const small = [1e-8, -1e-8, 1e-4, -1e-4, 0, 40, -40, 1000, -1000];
  const values = Float32Array.from([...x, ...small]);
  const rows = values.length;
  const given = { rows, inputs: 1, columns: 1, x: values, weight: [1], activation } as const;
  const linear = {
    segments: [await segment(Float32Array.of(1), 1, 1, 0, 1, "f32")],
    bias: null,
    inputs: 1,
    columns: 1,
  };
  const xs = await rig.tensor("x", [rows, 1], values);
  const [y] = await rig.run((k) => [matmul(k, xs, linear, { activation })]);
  const reason = "the last place of the largest value beside 0, and exp's few";
  expectClose(y, matmulReference(given), { absolute: 3e-7, relative: 2 ** -23, reason });
}

test("gelu is the exact one, to f32 rounding", () => compareActivation("gelu"));
test("tanh gelu, which is up to 5e-4 away from it, to f32 rounding", () => compareActivation("tanh gelu"));
test("quick gelu, which is up to 0.02 away from it, to f32 rounding", () => compareActivation("quick gelu"));
test("silu, which is quick gelu without its slope, to f32 rounding", () => compareActivation("silu"));

testHalves(rig, registerForm);

test("whole numbers of every size, the least and the largest scales, groups of zeros", async () => {
  for (const type of ["int8", "int4"] as const) {
    const bits = type === "int8" ? 8 : 4;
    const [inputs, columns] = [66, 260];
    const least = -(2 ** (bits - 1));
    const scale = [2 ** -107, -(2 ** -107), 1.9921875, -(2 ** 90), 0];
    const whole = Int32Array.from({ length: inputs * columns }, (_, i) => least + ((i % (2 ** bits + 1)) % 2 ** bits));
    const scales = Float64Array.from({ length: 3 * columns }, (_, i) => scale[i % scale.length] ?? 0);
    const given = { bits, inputs, columns, whole, scales } as const;
    const words = new Uint32Array(packedWords(inputs, columns, bits));
    packReference(given, columns, { into: words });
    const weight = await rig.tensor("weight", [inputs, columns], words, type);
    const linear = { segments: [{ weight, from: 0, width: columns }], bias: null, inputs, columns };
    // Row k takes input k alone.
    const unit = Float32Array.from({ length: inputs * inputs }, (_, i) => (i % (inputs + 1) === 0 ? 1 : 0));
    const x = await rig.tensor("x", [inputs, inputs], unit);
    const [y] = await rig.run((k) => [matmul(k, x, linear)]);
    expectClose(y, dequantizeReference(given), { absolute: 0, relative: 0, reason: "products by 1 are exact" });
  }
});

test("wrong shapes and types are named", async () => {
  const made = await make([2, 3, 4], "f32", { bias: true });
  const narrow = await rig.tensor("narrow", [2, 2], [1, 2, 3, 4]);
  const packed = await rig.tensor("packed", [2, 4], new Array(8).fill(1), "f16");
  const launch = (x: Tensor, linear: Linear, more: { residual?: Tensor; factor?: Tensor } = {}) =>
    rig.run((k) => [matmul(k, x, linear, more)]);
  await assert.rejects(
    launch(narrow, made.linear),
    /ShapeError: matmul: expected narrow to be \(rows, 3\), got \(2, 2\)/,
  );
  await assert.rejects(launch(packed, { ...made.linear, inputs: 4 }), /matmul: expected packed to be f32, got f16/);
  await assert.rejects(
    launch(made.x, made.linear, { residual: narrow }),
    /expected narrow to be \(2, 4\), got \(2, 2\)/,
  );
  await assert.rejects(launch(made.x, made.linear, { factor: narrow }), /expected narrow to be \(2, 4\), got \(2, 2\)/);
  await assert.rejects(launch(made.x, { ...made.linear, bias: narrow }), /expected narrow to be \(4\), got \(2, 2\)/);
  await assert.rejects(launch(made.x, { ...made.linear, columns: 3, bias: null }), /columns up to 3, got 4/);
  const whole = { segments: [{ weight: { ...packed, type: "u32" as const }, from: 0, width: 4 }], bias: null };
  await assert.rejects(
    launch(made.x, { ...whole, inputs: 3, columns: 4 }),
    /matmul: expected packed to be f32, f16, int8, int4, got u32/,
  );
});
