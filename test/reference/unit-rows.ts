// x / max(|x|, 1e-12) per row, in f64.

export function unitRowsReference(x: ArrayLike<number>, width: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    let squares = 0;
    for (let c = 0; c < width; c++) squares += (x[start + c] ?? Number.NaN) ** 2;
    const size = Math.max(Math.sqrt(squares), 1e-12);
    for (let c = 0; c < width; c++) y[start + c] = (x[start + c] ?? Number.NaN) / size;
  }
  return y;
}
