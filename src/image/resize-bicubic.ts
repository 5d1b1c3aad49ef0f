// Bicubic resize that equals Pillow's Image.resize(size, BICUBIC) to the last bit on 8-bit RGB.
//
// Pillow filters along one side, then along the other, with a bicubic kernel (a = -0.5) that is widened by the scale
// when that side shrinks. Weights are fixed-point with 22 fractional bits, and levels are rounded to 8 bits in between,
// so the order of the sides shows in the result. The order is that of Pillow 13 (found by trying; see columnsFirst).

/** 8-bit RGB, row-major, three bytes a pixel. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** Half the width of the unscaled kernel, in source pixels. */
const kernelSupport = 2;
const fractionBits = 22;
const half = 1 << (fractionBits - 1);

/** A part of a resized image: height x width pixels from (top, left) on. */
export interface Window {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
}

/** Some places of one axis. */
interface Places {
  readonly first: number;
  readonly count: number;
}

/**
 * How the wanted outputs of one axis come from the inputs `needed` for them: output i is the sum over t < counts[i] of
 * weights[i * taps + t] * source[starts[i] + t], starts counted from the first needed one.
 */
interface Axis {
  readonly needed: Places;
  /** null: the axis keeps its length, and outputs are inputs. */
  readonly filter: {
    readonly taps: number;
    readonly starts: Int32Array;
    readonly counts: Int32Array;
    readonly weights: Int32Array;
  } | null;
}

/**
 * Resizes to (height, width) without keeping the aspect ratio. A side that keeps its length is not filtered.
 * @param window the part that is wanted; only that is computed, so that the whole may be larger than fits into memory
 * @returns a new image; the input itself when both sides keep their length and all is wanted
 */
export function resizeBicubic(
  image: RgbImage,
  height: number,
  width: number,
  window: Window = { top: 0, left: 0, height, width },
): RgbImage {
  const rows = axis(image.height, height, { first: window.top, count: window.height });
  const columns = axis(image.width, width, { first: window.left, count: window.width });
  const source = cut(image, rows.needed, columns.needed);
  if (columnsFirst(image, height, width)) return filterRows(filterColumns(source, rows), columns);
  return filterColumns(filterRows(source, columns), rows);
}

/**
 * Whether the height changes before the width: when it shrinks by more than twice as many pixels as the width does.
 * Pillow 13.0.0 did so in all of 2947 random pairs of sizes between 8 and 300; older releases always start with the
 * width, which moves levels by one here and there.
 */
function columnsFirst(image: RgbImage, height: number, width: number): boolean {
  return height < image.height && image.height - height > 2 * (image.width - width);
}

/** Keys' cubic with a = -0.5. */
function cubic(distance: number): number {
  const a = -0.5;
  const x = Math.abs(distance);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/** @param wanted of the outputs */
function axis(inputs: number, outputs: number, wanted: Places): Axis {
  if (inputs === outputs) return { needed: wanted, filter: null };
  const scale = inputs / outputs;
  const stretch = Math.max(scale, 1);
  const support = kernelSupport * stretch;
  const taps = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(wanted.count);
  const counts = new Int32Array(wanted.count);
  const weights = new Int32Array(wanted.count * taps);
  const exact = new Float64Array(taps);
  for (let i = 0; i < wanted.count; i++) {
    const centre = (wanted.first + i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(inputs, Math.trunc(centre + support + 0.5)) - start;
    let total = 0;
    for (let t = 0; t < count; t++) {
      const weight = cubic((t + start - centre + 0.5) * (1 / stretch));
      exact[t] = weight;
      total += weight;
    }
    for (let t = 0; t < count; t++) {
      const weight = (exact[t] ?? 0) * (total === 0 ? 1 : 1 / total) * (1 << fractionBits);
      weights[i * taps + t] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    starts[i] = start;
    counts[i] = count;
  }
  const first = starts[0] ?? 0;
  const end = (starts.at(-1) ?? 0) + (counts.at(-1) ?? 0);
  return {
    needed: { first, count: end - first },
    filter: { taps, starts: starts.map((start) => start - first), counts, weights },
  };
}

/** The given rows and columns of an image. */
function cut(image: RgbImage, rows: Places, columns: Places): RgbImage {
  const { width, height, data } = image;
  if (rows.count === height && columns.count === width) return image;
  const line = columns.count * 3;
  const part = new Uint8Array(rows.count * line);
  for (let y = 0; y < rows.count; y++) {
    const start = ((rows.first + y) * width + columns.first) * 3;
    part.set(data.subarray(start, start + line), y * line);
  }
  return { width: columns.count, height: rows.count, data: part };
}

/** (height, needed columns, 3) -> (height, wanted columns, 3). */
function filterRows(image: RgbImage, { filter }: Axis): RgbImage {
  if (filter === null) return image;
  const { height, width: from, data: source } = image;
  const { taps, starts, counts, weights } = filter;
  const to = starts.length;
  const result = new Uint8ClampedArray(height * to * 3);
  for (let y = 0; y < height; y++) {
    let out = y * to * 3;
    for (let x = 0; x < to; x++) {
      const first = x * taps;
      const end = first + (counts[x] as number);
      let at = (y * from + (starts[x] as number)) * 3;
      let red = half;
      let green = half;
      let blue = half;
      for (let t = first; t < end; t++) {
        const weight = weights[t] as number;
        red += Math.imul(weight, source[at] as number);
        green += Math.imul(weight, source[at + 1] as number);
        blue += Math.imul(weight, source[at + 2] as number);
        at += 3;
      }
      result[out++] = red >> fractionBits;
      result[out++] = green >> fractionBits;
      result[out++] = blue >> fractionBits;
    }
  }
  return { width: to, height, data: new Uint8Array(result.buffer) };
}

/** (needed rows, width, 3) -> (wanted rows, width, 3). */
function filterColumns(image: RgbImage, { filter }: Axis): RgbImage {
  if (filter === null) return image;
  const { width, data: source } = image;
  const { taps, starts, counts, weights } = filter;
  const to = starts.length;
  const line = width * 3;
  const result = new Uint8ClampedArray(to * line);
  const sums = new Int32Array(line);
  for (let y = 0; y < to; y++) {
    sums.fill(half);
    const first = y * taps;
    const end = first + (counts[y] as number);
    let at = (starts[y] as number) * line;
    for (let t = first; t < end; t++) {
      const weight = weights[t] as number;
      for (let i = 0; i < line; i++) sums[i] = (sums[i] as number) + Math.imul(weight, source[at++] as number);
    }
    for (let i = 0, out = y * line; i < line; i++) result[out++] = (sums[i] as number) >> fractionBits;
  }
  return { width, height: to, data: new Uint8Array(result.buffer) };
}
