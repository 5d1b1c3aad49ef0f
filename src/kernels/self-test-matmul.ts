// The part of the self-test that asks matmul: every class that chooses a variant of it, and every activation.

import type { Recorder } from "../gpu/recorder.ts";
import { groupSize } from "../gpu/tensor.ts";
import { type Activation, matmul } from "./matmul.ts";
import { matmulTypes } from "./matmul-variants.ts";
import type { Given, Question } from "./self-test.ts";
import type { WeightType } from "./weights.ts";

export function matmulQuestions(k: Recorder, given: Given): Question[] {
  return [
    // Short ones of one row only: every tile takes a second or more to compile.
    ...(["f32", "f16"] as const).map((type) => askMatmul(k, given, type)),
    ...matmulTypes.flatMap((type) => rowsOfEachClass.map((rows) => askLongMatmul(k, given, rows, type))),
    askActivation(k, given, "gelu", [0.84134475, -0.15865525, 2.9959503, 0]),
    askActivation(k, given, "quick gelu", [0.84579577, -0.15420423, 2.9819287, -0.00022035355]),
    askActivation(k, given, "silu", [0.73105858, -0.26894142, 2.8577224, -0.014835739]),
    askTanhGelu(k, given),
    askFactor(k, given),
  ];
}

/** One count of rows of every class that chooses a variant of matmul. */
const rowsOfEachClass = [1, 3, 5, 9, 17, 65];

/** x = (2049, 0, -1), weight[k, c] = 1, 2 or 3: every sum is exact. f16 makes 2048 of 2049. No four inputs, and none to lend. */
function askMatmul(k: Recorder, given: Given, type: "f32" | "f16"): Question {
  const words = type === "f32" ? [1, 2, 3, 0] : [0x40003c00, 0x4200];
  const weight = given([3, 4], [...words, ...words, ...words], type);
  const linear = { segments: [{ weight, from: 0, width: 3 }], bias: given([3], [0.5, 0.25, 0]), inputs: 3, columns: 3 };
  const residual = given([1, 3], [0, 0, 100]);
  const sum = (type === "f32" ? 2049 : 2048) - 1;
  return {
    kernel: `matmul of 1 rows with ${type} weights`,
    answer: matmul(k, given([1, 3], [2049, 0, -1]), linear, { activation: "relu", residual }),
    expected: [sum + 0.5, 2 * sum + 0.25, 3 * sum + 100],
  };
}

/**
 * 2049, of which f16 makes 2048, and small whole numbers: every sum is exact. There are more inputs and columns than one step of
 * a tile takes, and no tile divides them, but eight invocations may lend them to each other.
 */
function askLongMatmul(k: Recorder, given: Given, rows: number, type: WeightType): Question {
  const [inputs, columns] = [216, 70]; // in bindings of 64 KiB, which tests make do with
  const stride = 72;
  const xAt = (r: number, i: number) => (i === 0 ? 2049 : ((3 * r + i) % 5) - 2);
  const weightAt = (i: number, c: number) => (c < columns ? ((2 * i + c) % 3) - 1 : 0);
  const linear = {
    segments: [
      { weight: given([inputs, stride], wordsOf(weightAt, inputs, stride, type), type), from: 0, width: columns },
    ],
    bias: given([columns], new Array(columns).fill(2500)),
    ...{ inputs, columns },
  };
  const residual = given([rows, columns], new Array(rows * columns).fill(0));
  const x = Array.from({ length: rows * inputs }, (_, at) => xAt(Math.floor(at / inputs), at % inputs));
  const sum = (r: number, c: number) => {
    let total = 2500;
    for (let i = 0; i < inputs; i++) total += (i === 0 && type !== "f32" ? 2048 : xAt(r, i)) * weightAt(i, c);
    return total;
  };
  return {
    kernel: `matmul of ${rows} long rows with ${type} weights`,
    answer: matmul(k, given([rows, inputs], x), linear, { activation: "relu", residual }),
    expected: Array.from({ length: rows * columns }, (_, at) => sum(Math.floor(at / columns), at % columns)),
  };
}

/** Scales of whole numbers, as bf16: those of neighbouring columns and groups differ, and so do those of the next four columns. */
const scales = [
  { value: 1, bits: 0x3f80 },
  { value: -1, bits: 0xbf80 },
  { value: 0.5, bits: 0x3f00 },
] as const;

function scaleAt(input: number, column: number) {
  return scales[(column + Math.floor(input / groupSize)) % 3] ?? scales[0];
}

/** -1, 0 and 1 as weights of a type: values of f32, else words. */
function wordsOf(
  weightAt: (input: number, column: number) => number,
  inputs: number,
  stride: number,
  type: WeightType,
): number[] {
  const columns = Array.from({ length: stride }, (_, column) => column);
  const pairs = columns.filter((column) => column % 2 === 0);
  const rows = Array.from({ length: inputs }, (_, input) => input);
  const half = (value: number) => [0xbc00, 0, 0x3c00][value + 1] ?? 0;
  if (type === "f32") return rows.flatMap((input) => columns.map((column) => weightAt(input, column)));
  if (type === "f16") {
    return rows.flatMap((input) =>
      pairs.map((column) => half(weightAt(input, column)) | (half(weightAt(input, column + 1)) << 16)),
    );
  }
  const [bits, mask] = type === "int8" ? [8, 0xff] : [4, 0xf];
  const word = (first: number, column: number) => {
    let packed = 0;
    for (let i = 0; i < 32 / bits && first + i < inputs; i++) {
      const whole = weightAt(first + i, column) / scaleAt(first + i, column).value;
      packed |= (whole & mask) << (bits * i);
    }
    return packed >>> 0;
  };
  return rows
    .filter((input) => input % groupSize === 0)
    .flatMap((group) => [
      ...Array.from({ length: bits }, (_, w) => group + (32 / bits) * w).flatMap((first) =>
        columns.map((column) => word(first, column)),
      ),
      ...pairs.map((column) => (scaleAt(group, column).bits | (scaleAt(group, column + 1).bits << 16)) >>> 0),
    ]);
}

/** Of 1, -1, 3 and -6. */
function askActivation(k: Recorder, given: Given, activation: Activation, expected: readonly number[]): Question {
  const segments = [{ weight: given([1, 4], [1, -1, 3, -6]), from: 0, width: 4 }];
  return {
    kernel: `matmul with ${activation}`,
    answer: matmul(k, given([1, 1], [1]), { segments, bias: null, inputs: 1, columns: 4 }, { activation }),
    expected,
  };
}

/** Of 1, -1, 3 and -2; at -6 nothing but exp's rounding would be left. */
function askTanhGelu(k: Recorder, given: Given): Question {
  const segments = [{ weight: given([1, 4], [1, -1, 3, -2]), from: 0, width: 4 }];
  const linear = { segments, bias: null, inputs: 1, columns: 4 };
  return {
    kernel: "matmul with tanh gelu",
    answer: matmul(k, given([1, 1], [1]), linear, { activation: "tanh gelu" }),
    expected: [0.84119199, -0.15880801, 2.9963626, -0.045402306],
  };
}

/** (2 + 1) * factor + 0.25 * residual */
function askFactor(k: Recorder, given: Given): Question {
  const segments = [{ weight: given([1, 4], [2, 2, 2, 0]), from: 0, width: 3 }];
  const linear = { segments, bias: given([3], [1, 1, 1]), inputs: 1, columns: 3 };
  const factor = given([1, 3], [4, -5, 0.5]);
  return {
    kernel: "matmul with a factor",
    answer: matmul(k, given([1, 1], [1]), linear, {
      factor,
      residual: given([1, 3], [400, 400, 400]),
      residualScale: 0.25,
    }),
    expected: [112, 85, 101.5],
  };
}
