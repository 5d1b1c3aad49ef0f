// Sums of rows, the shorter operand repeated, in f64.

export function addReference(x: ArrayLike<number>, addend: ArrayLike<number>): Float64Array {
  const sums = new Float64Array(Math.max(x.length, addend.length));
  for (let i = 0; i < sums.length; i++) {
    sums[i] = (x[i % x.length] ?? Number.NaN) + (addend[i % addend.length] ?? Number.NaN);
  }
  return sums;
}
