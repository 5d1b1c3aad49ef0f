// y = activation(x·W + b) * factor + residualScale * residual. Shader: shaders/matmul.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { launchForm } from "./matmul-forms.ts";
import { matmulClass, matmulOperation } from "./matmul-variants.ts";
import type { Linear } from "./weights.ts";
import { overTwo } from "./workgroups.ts";

/**
 * gelu is the exact one, quick gelu x·sigmoid(1.702·x), tanh gelu what ACT2FN calls "gelu_new" and "gelu_pytorch_tanh", silu
 * x·sigmoid(x).
 */
export type Activation = "none" | "gelu" | "relu" | "quick gelu" | "tanh gelu" | "silu";

const activations = { none: 0, gelu: 1, relu: 2, "quick gelu": 3, "tanh gelu": 4, silu: 5 } as const;

/**
 * activation(x·W + b) * factor + residualScale * residual. x: (rows, inputs), factor, residual: (rows, columns) -> (rows, columns) f32.
 * With f16 weights x is rounded to f16 first; sums stay f32. A row's bits do not depend on the other rows.
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
    const stride = Math.ceil(width / 4) * 4;
    expectShape("matmul", weight, [inputs, stride]);
    if (from + width > columns) throw new ShapeError(`matmul: expected columns up to ${columns}, got ${from + width}`);
    const half = weight.type === "f16";
    const choice = k.variants.choose(matmulOperation, matmulClass(half ? "f16" : "f32", rows));
    const { variant } = choice;
    if (variant.shader !== "matmul") {
      const epilogue = { bias, factor, residual, residualScale, activation: activations[activation] };
      launchForm(k, { x, weight, y, firstColumn: from, width, choice, ...epilogue }, variant);
      continue;
    }
    const { WORKGROUP, ROWS, VECS, ...most } = variant;
    const LANES = Math.min(most.LANES, powerOfTwoIn(inputs));
    const [tilesOfRows, layers] = overTwo(Math.ceil(rows / ROWS));
    k.launch("matmul", {
      inputs: { x, weight, bias: bias ?? x, factor: factor ?? x, residual: residual ?? x },
      outputs: { y },
      params: { rows, inputs, columns, firstColumn: from, width, stride, residualScale },
      constants: {
        F16: half ? "true" : "false",
        LANES,
        STEPS: Math.min(most.STEPS, LANES),
        // One row gains nothing by it, and compiles longer.
        FOURS: LANES === 1 && ROWS > 1 && inputs % 4 === 0 ? "true" : "false",
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
