// What every shader of matmul is launched with, whatever its tile.

import type { Launch } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Choice } from "../gpu/variants.ts";

/** As the shaders number them. */
export const weightNumbers = { f32: 0, f16: 1, int8: 2, int4: 3 } as const;

/** One launch fills the columns [firstColumn, firstColumn + width) of y. */
export interface MatmulLaunch {
  /** (rows, inputs) f32 */
  readonly x: Tensor;
  /** (inputs, stride), the stride a multiple of 4 */
  readonly weight: Tensor;
  readonly bias: Tensor | null;
  readonly factor: Tensor | undefined;
  readonly residual: Tensor | undefined;
  /** (rows, columns) f32 */
  readonly y: Tensor;
  readonly firstColumn: number;
  readonly width: number;
  readonly residualScale: number;
  /** As the shaders number them. */
  readonly activation: number;
  /** The variant that this is a launch of; a launch without one cannot be refused. */
  readonly choice?: Choice;
}

/** rows, inputs, columns of the whole matrix, stride of the weights. */
export function matmulSizes({ x, weight, y }: MatmulLaunch) {
  const [rows = 0, inputs = 0] = x.shape;
  return { rows, inputs, columns: y.shape[1] ?? 0, stride: weight.shape[1] ?? 0 };
}

/** Inputs, outputs, params, and the constants of the epilogue. */
export function matmulBindings(
  given: MatmulLaunch,
): Pick<Launch, "inputs" | "outputs" | "choice"> & Required<Pick<Launch, "params" | "constants">> {
  const { x, weight, bias, factor, residual, y, firstColumn, width, residualScale, activation } = given;
  return {
    inputs: { x, weight, bias: bias ?? x, factor: factor ?? x, residual: residual ?? x },
    outputs: { y },
    params: { ...matmulSizes(given), firstColumn, width, residualScale },
    constants: {
      ACTIVATION: activation,
      HAS_BIAS: bias ? "true" : "false",
      HAS_FACTOR: factor ? "true" : "false",
      HAS_RESIDUAL: residual ? "true" : "false",
    },
    ...(given.choice && { choice: given.choice }),
  };
}
