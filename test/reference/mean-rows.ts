// The mean of each item's rows, in f64.

export function meanRowsReference(x: ArrayLike<number>, items: number, width: number): Float64Array {
  const count = x.length / width / items;
  const y = new Float64Array(items * width);
  for (let item = 0; item < items; item++) {
    for (let c = 0; c < width; c++) {
      let sum = 0;
      for (let t = 0; t < count; t++) sum += x[(item * count + t) * width + c] ?? Number.NaN;
      y[item * width + c] = sum / count;
    }
  }
  return y;
}
