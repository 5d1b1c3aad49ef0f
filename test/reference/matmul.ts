// y = activation(x·W + b) * factor + residualScale * residual, in f64.

import { erf } from "./erf.ts";

export interface MatmulCase {
  readonly rows: number;
  readonly inputs: number;
  readonly columns: number;
  /** (rows, inputs) */
  readonly x: ArrayLike<number>;
  /** (inputs, columns) */
  readonly weight: ArrayLike<number>;
  readonly bias?: ArrayLike<number> | undefined;
  readonly factor?: ArrayLike<number> | undefined;
  readonly residual?: ArrayLike<number> | undefined;
  /** Default 1 */
  readonly residualScale?: number | undefined;
  readonly activation?: "none" | "gelu" | "relu" | "quick gelu" | "tanh gelu" | "silu";
  /** Applied to every x before it is multiplied. */
  readonly round?: (value: number) => number;
}

export function matmulReference(given: MatmulCase): Float64Array {
  const {
    rows,
    inputs,
    columns,
    x,
    weight,
    bias,
    factor,
    residual,
    residualScale = 1,
    activation = "none",
    round = (value) => value,
  } = given;
  const y = new Float64Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      let sum = 0;
      for (let k = 0; k < inputs; k++) {
        sum += round(x[r * inputs + k] ?? Number.NaN) * (weight[k * columns + c] ?? Number.NaN);
      }
      if (bias) sum += bias[c] ?? Number.NaN;
      if (activation === "gelu") sum = (sum / 2) * (1 + erf(sum / Math.SQRT2));
      if (activation === "relu") sum = Math.max(sum, 0);
      if (activation === "quick gelu") sum /= 1 + Math.exp(-1.702 * sum);
      if (activation === "silu") sum /= 1 + Math.exp(-sum);
      if (activation === "tanh gelu") {
        sum = (sum / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (sum + 0.044715 * sum ** 3)));
      }
      if (factor) sum *= factor[r * columns + c] ?? Number.NaN;
      if (residual) sum += residualScale * (residual[r * columns + c] ?? Number.NaN);
      y[r * columns + c] = sum;
    }
  }
  return y;
}
