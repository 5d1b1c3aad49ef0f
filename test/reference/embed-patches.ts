// [class; patches] + position, in f64.

export function embedPatchesReference(
  x: ArrayLike<number>,
  classEmbedding: ArrayLike<number>,
  position: ArrayLike<number>,
  { batch, patches, width }: { batch: number; patches: number; width: number },
): Float64Array {
  const rows: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let c = 0; c < width; c++) rows.push((classEmbedding[c] ?? Number.NaN) + (position[c] ?? Number.NaN));
    for (let p = 0; p < patches; p++) {
      for (let c = 0; c < width; c++) {
        rows.push((x[(b * patches + p) * width + c] ?? Number.NaN) + (position[(p + 1) * width + c] ?? Number.NaN));
      }
    }
  }
  return Float64Array.from(rows);
}
