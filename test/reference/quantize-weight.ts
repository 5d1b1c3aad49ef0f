// Groups of 32 inputs of a column as whole numbers and a scale, in f64.

const group = 32;

export interface Quantized {
  readonly bits: 4 | 8;
  readonly inputs: number;
  readonly columns: number;
  /** (inputs, columns) */
  readonly whole: Int32Array;
  /** (groups, columns) */
  readonly scales: Float64Array;
}

/** The number of 8 significant bits nearest to a value, ties to even. */
function toBf16(value: number): number {
  if (value === 0) return 0;
  const unit = 2 ** (Math.floor(Math.log2(Math.abs(value))) - 7);
  const scaled = value / unit;
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  return (rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor) * unit;
}

/** @param weight (inputs, columns) of finite values */
export function quantizeReference(weight: ArrayLike<number>, inputs: number, columns: number, bits: 4 | 8): Quantized {
  const least = 2 ** (bits - 1);
  const whole = new Int32Array(inputs * columns);
  const scales = new Float64Array(Math.ceil(inputs / group) * columns);
  for (let c = 0; c < columns; c++) {
    for (let first = 0; first < inputs; first += group) {
      const end = Math.min(first + group, inputs);
      let largest = 0;
      for (let k = first; k < end; k++) {
        const value = weight[k * columns + c] ?? Number.NaN;
        if (Math.abs(value) > Math.abs(largest)) largest = value;
      }
      const scale = Math.abs(largest) < 2 ** -100 ? 0 : toBf16(-largest / least);
      scales[(first / group) * columns + c] = scale;
      for (let k = first; k < end && scale !== 0; k++) {
        const ratio = (weight[k * columns + c] ?? Number.NaN) / scale;
        const nearest = Math.sign(ratio) * Math.floor(Math.abs(ratio) + 0.5);
        whole[k * columns + c] = Math.min(Math.max(nearest, -least), least - 1);
      }
    }
  }
  return { bits, inputs, columns, whole, scales };
}

/** What the whole numbers stand for: (inputs, columns). */
export function dequantizeReference({ inputs, columns, whole, scales }: Quantized): Float64Array {
  return Float64Array.from({ length: inputs * columns }, (_, i) => {
    const [k, c] = [Math.floor(i / columns), i % columns];
    return (whole[i] ?? Number.NaN) * (scales[Math.floor(k / group) * columns + c] ?? Number.NaN);
  });
}

/**
 * As they lie on the GPU: for every group of inputs first the words of `stride` columns, row by row, then the scales.
 * @param first the column of the first
 * @param into what is there already; columns that are not written stay
 */
export function packReference(
  { bits, inputs, columns, whole, scales }: Quantized,
  stride: number,
  { into, first = 0 }: { readonly into: Uint32Array; readonly first?: number },
): void {
  const inWord = 32 / bits;
  const words = group / inWord;
  for (let g = 0; g * group < inputs; g++) {
    const start = g * stride * (words + 0.5);
    for (let c = 0; c < columns; c++) {
      for (let w = 0; w < words; w++) {
        let word = 0;
        for (let i = 0; i < inWord; i++) {
          const k = g * group + w * inWord + i;
          const value = k < inputs ? (whole[k * columns + c] ?? Number.NaN) : 0;
          word |= (value & (2 ** bits - 1)) << (bits * i);
        }
        into[start + w * stride + first + c] = word >>> 0;
      }
      const [scale = 0] = new Uint32Array(Float32Array.of(scales[g * columns + c] ?? Number.NaN).buffer);
      const at = start + words * stride + Math.floor((first + c) / 2);
      const shift = ((first + c) % 2) * 16;
      into[at] = (((into[at] ?? 0) & (0xffff0000 >>> shift)) | ((scale >>> 16) << shift)) >>> 0;
    }
  }
}

/** Words of a packed matrix. */
export function packedWords(inputs: number, stride: number, bits: 4 | 8): number {
  return Math.ceil(inputs / group) * stride * (bits + 0.5);
}
