// The values of f16 bits, by the definition of the format.

export function takeOverReference(bits: ArrayLike<number>): Float64Array {
  return Float64Array.from({ length: bits.length }, (_, i) => {
    const half = bits[i] ?? 0;
    const sign = half >= 0x8000 ? -1 : 1;
    const exponent = Math.floor(half / 1024) % 32;
    const fraction = (half % 1024) / 1024;
    if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
    if (exponent === 0) return sign * fraction * 2 ** -14;
    return sign * (1 + fraction) * 2 ** (exponent - 15);
  });
}
