// y = activation(x·W + b) * factor + residualScale * residual. Shader: shaders/matmul.wgsl, or another that the tables choose

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, groupSize, isPacked, type Tensor } from "../gpu/tensor.ts";
import { launchForm, type RegisterTile } from "./matmul-forms.ts";
import { type MatmulLaunch, matmulBindings, matmulSizes, weightNumbers } from "./matmul-launch.ts";
import { matmulClass, matmulOperation } from "./matmul-variants.ts";
import type { Linear, WeightType } from "./weights.ts";
import { overTwo } from "./workgroups.ts";

/**
 * gelu is the exact one, quick gelu x·sigmoid(1.702·x), tanh gelu what ACT2FN calls "gelu_new" and "gelu_pytorch_tanh", silu
 * x·sigmoid(x).
 */
export type Activation = "none" | "gelu" | "relu" | "quick gelu" | "tanh gelu" | "silu";

const activations = { none: 0, gelu: 1, relu: 2, "quick gelu": 3, "tanh gelu": 4, silu: 5 } as const;

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
    const epilogue = { bias, factor, residual, residualScale, activation: activations[activation] };
    const given = { x, weight, y, firstColumn: from, width, choice, ...epilogue };
    const { variant } = choice;
    if (variant.shader === "matmul") launchRegisterTile(k, given, variant);
    else launchForm(k, given, variant);
  }
  return y;
}

/** The form of shaders/matmul.wgsl: a tile in registers, for CPU drivers, and for all that no other form takes. */
function launchRegisterTile(k: Recorder, given: MatmulLaunch, tile: RegisterTile): void {
  const { WORKGROUP, ROWS, VECS } = tile;
  const { rows, inputs, stride } = matmulSizes(given);
  const { constants, ...bindings } = matmulBindings(given);
  const type = given.weight.type as WeightType;
  const LANES = lanesFor(type, inputs, tile.LANES);
  const [tilesOfRows, layers] = overTwo(Math.ceil(rows / ROWS));
  k.launch("matmul", {
    ...bindings,
    constants: {
      ...constants,
      ...{ WORKGROUP, ROWS, VECS, LANES },
      WEIGHT: weightNumbers[type],
      STEPS: Math.min(tile.STEPS, LANES),
      FOURS: LANES === 1 && readsFours(type, inputs, ROWS) ? "true" : "false",
    },
    workgroups: [tilesOfRows, Math.ceil(stride / (4 * WORKGROUP * VECS)), layers],
  });
}

/** A word of int4 takes two fours. One row of f32 or f16 gains nothing by it, and compiles longer. */
function readsFours(type: WeightType, inputs: number, rows: number): boolean {
  if (type === "int4") return inputs % 8 === 0;
  return inputs % 4 === 0 && (type === "int8" || rows > 1);
}

/** So many divide the inputs; of whole numbers they take a word at least. */
function lanesFor(type: WeightType, inputs: number, most: number): number {
  const lanes = Math.min(most, powerOfTwoIn(inputs));
  if (!isPacked(type)) return lanes;
  return lanes < (type === "int4" ? 8 : 4) ? 1 : Math.min(lanes, groupSize);
}

/** The largest that divides a whole number. */
function powerOfTwoIn(size: number): number {
  return size & -size;
}
