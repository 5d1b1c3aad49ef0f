// y = (x - mean) / sqrt(variance + eps) * gain + bias per row, in f64.

export interface LayerNormCase {
  readonly rows: number;
  readonly width: number;
  /** (rows, width) */
  readonly x: ArrayLike<number>;
  readonly gain: ArrayLike<number>;
  readonly bias: ArrayLike<number>;
  readonly eps: number;
}

export function layerNormReference({ rows, width, x, gain, bias, eps }: LayerNormCase): Float64Array {
  const y = new Float64Array(rows * width);
  for (let r = 0; r < rows; r++) {
    let mean = 0;
    for (let c = 0; c < width; c++) mean += (x[r * width + c] ?? Number.NaN) / width;
    let variance = 0;
    for (let c = 0; c < width; c++) variance += ((x[r * width + c] ?? Number.NaN) - mean) ** 2 / width;
    for (let c = 0; c < width; c++) {
      const centred = (x[r * width + c] ?? Number.NaN) - mean;
      y[r * width + c] = (centred / Math.sqrt(variance + eps)) * (gain[c] ?? Number.NaN) + (bias[c] ?? Number.NaN);
    }
  }
  return y;
}
