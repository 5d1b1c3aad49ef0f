// Random values that both sides of a comparison make for themselves, from the same seed.

export interface RandomValues {
  readonly seed: number;
  /** Values lie in [-scale, scale). */
  readonly scale: number;
  /** Added to every value. Default 0. */
  readonly mean?: number;
}

/** A prime, so that what repeats falls on other columns in every row. */
const period = 16381;

/**
 * `count` values from the `first`-th of an endless row on, as f32 or as f16 (nearest, ties to even). They repeat after
 * `period`: matrices of hundreds of megabytes are made by copying.
 */
export function randomBytesOf(type: "f32" | "f16", count: number, values: RandomValues, first = 0): Uint8Array {
  const block = randomBlock(type, values);
  const width = type === "f16" ? 2 : 4;
  const bytes = new Uint8Array(Math.ceil((count * width) / 4) * 4);
  for (let at = 0, from = first % period; at < count; from = 0) {
    const size = Math.min(period - from, count - at);
    bytes.set(block.subarray(from * width, (from + size) * width), at * width);
    at += size;
  }
  return bytes.subarray(0, count * width);
}

/** `count` words of an endless row of random ones, which repeats after `period`. */
export function randomWords(count: number, seed: number): Uint32Array {
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  const block = Uint32Array.from({ length: period }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state;
  });
  return Uint32Array.from({ length: count }, (_, i) => block[i % period] ?? 0);
}

const blocks = new Map<string, Uint8Array>();

function randomBlock(type: "f32" | "f16", { seed, scale, mean = 0 }: RandomValues): Uint8Array {
  const key = `${type} ${seed} ${scale} ${mean}`;
  const known = blocks.get(key);
  if (known) return known;
  // xorshift32, started away from 0
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  const values = Float32Array.from({ length: period }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return mean + (scale * state) / 2 ** 31;
  });
  const made = type === "f32" ? values : Uint16Array.from(values, halfBits);
  const block = new Uint8Array(made.buffer);
  blocks.set(key, block);
  return block;
}

/** The bits of the f16 nearest to a value within its range, ties to even. */
export function halfBits(value: number): number {
  const sign = value < 0 ? 0x8000 : 0;
  const size = Math.abs(value);
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  const scaled = size * 2 ** (10 - exponent);
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  const rounded = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
  // Without implicit bit where it is subnormal; a carry goes into the exponent by itself.
  return sign | (size < 2 ** -14 ? rounded : ((exponent + 14) << 10) + rounded);
}
