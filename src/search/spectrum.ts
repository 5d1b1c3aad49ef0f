// What code-basis.ts needs of linear algebra: eigenvectors of a covariance, and a random rotation that is always the same.

/**
 * Eigenvalues and eigenvectors of a symmetric matrix, by cyclic Jacobi rotations (Golub and Van Loan, section 8.5).
 * @param matrix (n, n); overwritten
 * @returns values in no order, vectors (n, n): row i belongs to value i
 */
export function eigenvectors(matrix: Float64Array, n: number): { values: Float64Array; vectors: Float64Array } {
  const vectors = new Float64Array(n * n);
  for (let i = 0; i < n; i++) vectors[i * n + i] = 1;
  const at = (i: number, j: number) => matrix[i * n + j] as number;
  let total = 0;
  for (const value of matrix) total += value * value;
  for (let sweep = 0; sweep < mostSweeps; sweep++) {
    let outside = 0;
    for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) outside += at(i, j) ** 2;
    if (outside <= total * negligible) break;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (at(p, q) ** 2 <= (total * negligible) / (n * n)) continue;
        const ratio = (at(q, q) - at(p, p)) / (2 * at(p, q));
        const tangent = (ratio < 0 ? -1 : 1) / (Math.abs(ratio) + Math.sqrt(1 + ratio * ratio));
        const cosine = 1 / Math.sqrt(1 + tangent * tangent);
        const turn = { cosine, sine: tangent * cosine };
        rotate(matrix, { p, q, step: n, count: n }, turn);
        rotate(matrix, { p: p * n, q: q * n, step: 1, count: n }, turn);
        rotate(vectors, { p: p * n, q: q * n, step: 1, count: n }, turn);
      }
    }
  }
  return { values: Float64Array.from({ length: n }, (_, i) => at(i, i)), vectors };
}

/** Of all squares, those outside the diagonal. */
const negligible = 1e-18;
/** Convergence is quadratic; ten sweeps are many. */
const mostSweeps = 30;

/** (a, b) becomes (c a - s b, s a + c b), for `count` pairs of values: from `p` and `q` on, `step` apart. */
function rotate(
  values: Float64Array,
  { p, q, step, count }: { readonly p: number; readonly q: number; readonly step: number; readonly count: number },
  { cosine, sine }: { readonly cosine: number; readonly sine: number },
): void {
  for (let i = 0; i < count; i++) {
    const a = values[p + i * step] as number;
    const b = values[q + i * step] as number;
    values[p + i * step] = cosine * a - sine * b;
    values[q + i * step] = sine * a + cosine * b;
  }
}

/**
 * A random matrix with orthonormal columns, the same for the same sizes.
 * @returns (rows, columns), rows >= columns
 */
export function randomRotation(rows: number, columns: number): Float64Array {
  const random = normals(0x9e3779b9);
  const kept: Float64Array[] = [];
  while (kept.length < columns) {
    const column = Float64Array.from({ length: rows }, random);
    // Twice: once leaves rounding errors of the size of what was taken away.
    for (const other of [...kept, ...kept]) subtract(column, other, dot(column, other));
    const length = Math.sqrt(dot(column, column));
    if (length > 1e-6) kept.push(column.map((value) => value / length));
  }
  return Float64Array.from(
    { length: rows * columns },
    (_, i) => (kept[i % columns] as Float64Array)[Math.floor(i / columns)] as number,
  );
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}

function subtract(a: Float64Array, b: Float64Array, times: number): void {
  for (let i = 0; i < a.length; i++) a[i] = (a[i] as number) - times * (b[i] as number);
}

/** Normally distributed numbers from a seed: Box and Muller over mulberry32. */
function normals(seed: number): () => number {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}
