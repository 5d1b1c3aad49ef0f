// Positions of a square grid of patches, resized to another grid: what a ViT adds to images of a size that it was not trained
// with. Upstream: transformers 4.57.6, interpolate_pos_encoding of Blip2VisionEmbeddings, BlipVisionEmbeddings and
// CLIPVisionEmbeddings, which is PyTorch's interpolate(mode="bicubic", align_corners=False): no antialiasing, and a = -0.75.

import { ShapeError } from "../gpu/errors.ts";

/** PyTorch's a of the cubic convolution; Pillow's, for pixels, is -0.5. */
const a = -0.75;

/**
 * positions (1 + from * from, width), the class token's row first -> (1 + to * to, width). The class token's row stays.
 * @throws ShapeError when the values are not as many as `from` and `width` say
 */
export function interpolatePositions(
  positions: Float32Array,
  { from, to, width }: { readonly from: number; readonly to: number; readonly width: number },
): Float32Array {
  if (positions.length !== (1 + from * from) * width) {
    throw new ShapeError(
      `positions: expected (1 + ${from} * ${from}) * ${width} values, got ${positions.length} of them`,
    );
  }
  const taps = Array.from({ length: to }, (_, at) => tapsAt(at, from, to));
  const result = new Float32Array((1 + to * to) * width);
  result.set(positions.subarray(0, width));
  // Along each row of the grid first, then along its columns.
  const wide = new Float64Array(from * to * width);
  for (let y = 0; y < from; y++) {
    for (const [x, row] of taps.entries()) {
      for (const { place, weight } of row) {
        const source = (1 + y * from + place) * width;
        const target = (y * to + x) * width;
        for (let c = 0; c < width; c++)
          wide[target + c] = (wide[target + c] ?? 0) + weight * (positions[source + c] ?? 0);
      }
    }
  }
  for (const [y, column] of taps.entries()) {
    for (let x = 0; x < to; x++) {
      const target = (1 + y * to + x) * width;
      for (let c = 0; c < width; c++) {
        let sum = 0;
        for (const { place, weight } of column) sum += weight * (wide[(place * to + x) * width + c] ?? 0);
        result[target + c] = sum;
      }
    }
  }
  return result;
}

/** The four places that one place of the new grid is made of; beyond the edge the last one is taken again. */
function tapsAt(at: number, from: number, to: number): readonly { readonly place: number; readonly weight: number }[] {
  const centre = (from / to) * (at + 0.5) - 0.5;
  const first = Math.floor(centre) - 1;
  return [0, 1, 2, 3].map((tap) => ({
    place: Math.min(from - 1, Math.max(0, first + tap)),
    weight: cubic(Math.abs(centre - first - tap)),
  }));
}

/** The kernel of the cubic convolution at a distance of 0 to 2. */
function cubic(distance: number): number {
  const d = distance;
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
}
