// Patches of an image as rows, in f64.

export function unfoldPatchesReference(
  pixels: ArrayLike<number>,
  [batch, channels, height, width]: readonly [number, number, number, number],
  size: number,
): Float64Array {
  const rows: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let top = 0; top + size <= height; top += size) {
      for (let left = 0; left + size <= width; left += size) {
        for (let c = 0; c < channels; c++) {
          for (let dy = 0; dy < size; dy++) {
            for (let dx = 0; dx < size; dx++) {
              rows.push(pixels[((b * channels + c) * height + top + dy) * width + left + dx] ?? Number.NaN);
            }
          }
        }
      }
    }
  }
  return Float64Array.from(rows);
}
