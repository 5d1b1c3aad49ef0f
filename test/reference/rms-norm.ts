// Root-mean-square normalisation in f64.

export interface RmsNormCase {
  readonly rows: number;
  readonly width: number;
  readonly x: ArrayLike<number>;
  readonly gain: ArrayLike<number>;
  readonly eps: number;
  readonly factor?: number;
}

export function rmsNormReference({ rows, width, x, gain, eps, factor = 1 }: RmsNormCase): Float64Array {
  const y = new Float64Array(rows * width);
  for (let r = 0; r < rows; r++) {
    let squares = 0;
    for (let c = 0; c < width; c++) squares += (x[r * width + c] ?? Number.NaN) ** 2;
    const root = Math.sqrt(squares / width + eps);
    for (let c = 0; c < width; c++) {
      y[r * width + c] = ((x[r * width + c] ?? Number.NaN) / root) * (gain[c] ?? Number.NaN) * factor;
    }
  }
  return y;
}
