// How the kernels over a vocabulary cut it, so that a row keeps many workgroups busy.

/** Ids of one chunk, unless there would be more than `mostHeads` chunk heads (rows of an item times chunks). */
const leastChunk = 1024;
/** Chunk heads of one item in workgroup memory: 8 bytes each, half of what every device has. */
const mostHeads = 1024;

export interface VocabularyChunks {
  /** Ids per chunk; the last one may be cut. */
  readonly chunk: number;
  readonly chunks: number;
}

/** The cut of a vocabulary for `beams` rows per item. It depends on nothing else, so neither do sums over chunks. */
export function vocabularyChunks(vocabulary: number, beams: number): VocabularyChunks {
  let chunk = leastChunk;
  while (beams * Math.ceil(vocabulary / chunk) > mostHeads) chunk *= 2;
  return { chunk, chunks: Math.ceil(vocabulary / chunk) };
}

/** Invocations of a workgroup that scans a chunk: one SIMD group on CPU drivers, more where latency must be hidden. */
export function scanLanes(softwareAdapter: boolean): number {
  return softwareAdapter ? 8 : 64;
}
