// Rotary positions, in f64: as complex numbers.

export interface RotaryCase {
  readonly heads: number;
  readonly parts: number;
  /** Of a part; even. */
  readonly partWidth: number;
  readonly base: number;
  /** (rows, heads * parts * partWidth) */
  readonly x: ArrayLike<number>;
  /** (rows, parts); null: a row without position. */
  readonly positions: readonly (readonly number[] | null)[];
}

export function rotaryReference({ heads, parts, partWidth, base, x, positions }: RotaryCase): Float64Array {
  const width = heads * parts * partWidth;
  const half = partWidth / 2;
  const y = new Float64Array(positions.length * width);
  for (const [row, own] of positions.entries()) {
    if (own === null) continue;
    for (let head = 0; head < heads; head++) {
      for (let part = 0; part < parts; part++) {
        for (let i = 0; i < half; i++) {
          const real = row * width + (head * parts + part) * partWidth + i;
          const imaginary = real + half;
          const angle = (own[part] ?? Number.NaN) * base ** ((-2 * i) / partWidth);
          const [a, b] = [x[real] ?? Number.NaN, x[imaginary] ?? Number.NaN];
          y[real] = a * Math.cos(angle) - b * Math.sin(angle);
          y[imaginary] = a * Math.sin(angle) + b * Math.cos(angle);
        }
      }
    }
  }
  return y;
}
