// y = activation(x·W + b) * factor + residualScale * residual. Shader: shaders/matmul.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { launchForm } from "./matmul-forms.ts";
import { weightNumbers } from "./matmul-launch.ts";
import { matmulClass, matmulOperation } from "./matmul-variants.ts";
import type { Linear, WeightType } from "./weights.ts";
import { overTwo } from "./workgroups.ts";

/**
 * gelu is the exact one, quick gelu x·sigmoid(1.702·x), tanh gelu what ACT2FN calls "gelu_new" and "gelu_pytorch_tanh", silu
 * x·sigmoid(x).
 */
export type Activation = "none" | "gelu" | "relu" | "quick gelu" | "tanh gelu" | "silu";

const activations = { none: 0, gelu: 1, relu: 2, "quick gelu": 3, "tanh gelu": 4, silu: 5 } as const;

/** A word of int4 takes two fours. One row of f32 or f16 gains nothing by it, and compiles longer. */
function readsFours(type: WeightType, inputs: number, rows: number): boolean {
  if (type === "int4") return inputs % 8 === 0;
  return inputs % 4 === 0 && (type === "int8" || rows > 1);
}

/** @throws ShapeError */
function weightTypeOf({ name, type }: Tensor): WeightType {
  if (Object.hasOwn(weightNumbers, type)) return type as WeightType;
  throw new ShapeError(`matmul: expected ${name} to be ${Object.keys(weightNumbers).join(", ")}, got ${type}`);
}

/**
 * activation(x·W + b) * factor + residualScale * residual. x: (rows, inputs), factor, residual: (rows, columns) -> (rows, columns) f32.
 * With weights other than f32 x is rounded to f16 first; sums stay f32. A row's bits do not depend on the other rows; on GPUs, where other
 * variants serve other numbers of rows, only within a class of those.
 * @throws ShapeError
 */
export function matmul(
  k: Recorder,
  x: Tensor,
  linear: Linear,
  {
    activation = "none",
    factor,
    residual,
    residualScale = 1,
  }: { activation?: Activation; factor?: Tensor; residual?: Tensor; residualScale?: number } = {},
): Tensor {
  const { segments, bias, inputs, columns } = linear;
  const [rows = 0] = expectShape("matmul", x, ["rows", inputs], "f32");
  if (bias) expectShape("matmul", bias, [columns]);
  if (factor) expectShape("matmul", factor, [rows, columns], "f32");
  if (residual) expectShape("matmul", residual, [rows, columns]);
  const y = k.scratch("y", [rows, columns]);
  for (const { weight, from, width } of segments) {
    const type = weightTypeOf(weight);
    const stride = Math.ceil(width / 4) * 4;
    expectShape("matmul", weight, [inputs, stride]);
    if (from + width > columns) throw new ShapeError(`matmul: expected columns up to ${columns}, got ${from + width}`);
    const choice = k.variants.choose(matmulOperation, matmulClass(type, rows));
    const { variant } = choice;
    if (variant.shader !== "matmul") {
      const epilogue = { bias, factor, residual, residualScale, activation: activations[activation] };
      launchForm(k, { x, weight, y, firstColumn: from, width, choice, ...epilogue }, variant);
      continue;
    }
    const { WORKGROUP, ROWS, VECS, ...most } = variant;
    // Packed weights bring what is to be done with a load: there inputs are not lent.
    const LANES = weightNumbers[type] > weightNumbers.f16 ? 1 : Math.min(most.LANES, powerOfTwoIn(inputs));
    const [tilesOfRows, layers] = overTwo(Math.ceil(rows / ROWS));
    k.launch("matmul", {
      inputs: { x, weight, bias: bias ?? x, factor: factor ?? x, residual: residual ?? x },
      outputs: { y },
      params: { rows, inputs, columns, firstColumn: from, width, stride, residualScale },
      constants: {
        WEIGHT: weightNumbers[type],
        LANES,
        STEPS: Math.min(most.STEPS, LANES),
        FOURS: LANES === 1 && readsFours(type, inputs, ROWS) ? "true" : "false",
        ACTIVATION: activations[activation],
        HAS_BIAS: bias ? "true" : "false",
        HAS_FACTOR: factor ? "true" : "false",
        HAS_RESIDUAL: residual ? "true" : "false",
        ...{ WORKGROUP, ROWS, VECS },
      },
      workgroups: [tilesOfRows, Math.ceil(stride / (4 * WORKGROUP * VECS)), layers],
      choice,
    });
  }
  return y;
}

/** The largest that divides a whole number. */
function powerOfTwoIn(size: number): number {
  return size & -size;
}
