// Which tile of matmul serves which number of rows on which kind of adapter.

/** Constants of shaders/matmul.wgsl: invocations of a workgroup, rows and groups of four columns per invocation. */
export interface MatmulTile {
  readonly WORKGROUP: number;
  readonly ROWS: number;
  readonly VECS: number;
}

/**
 * Measured on lavapipe 25.0 (256-bit vectors, two cores), best of those tried: (256 x 1408)·(1408 x 1408) with 8 x 4
 * 27 ms, with 16 x 4 34 to 45, with 8 x 2 31; (1 x 1408)·(1408 x 6144) with 1 x 2 2.6 ms, with 1 x 1 3.5.
 * GPUs want many invocations; their tiles are a guess that has not been measured.
 */
const table = {
  software: [
    { upTo: 1, tile: { WORKGROUP: 8, ROWS: 1, VECS: 2 } },
    { upTo: 4, tile: { WORKGROUP: 8, ROWS: 4, VECS: 2 } },
    { upTo: 8, tile: { WORKGROUP: 8, ROWS: 8, VECS: 2 } },
    { upTo: Number.POSITIVE_INFINITY, tile: { WORKGROUP: 8, ROWS: 8, VECS: 4 } },
  ],
  gpu: [
    { upTo: 1, tile: { WORKGROUP: 32, ROWS: 1, VECS: 1 } },
    { upTo: 4, tile: { WORKGROUP: 32, ROWS: 4, VECS: 1 } },
    { upTo: Number.POSITIVE_INFINITY, tile: { WORKGROUP: 64, ROWS: 8, VECS: 1 } },
  ],
} as const;

export function matmulTile(softwareAdapter: boolean, rows: number): MatmulTile {
  const rules = table[softwareAdapter ? "software" : "gpu"];
  return (rules.find(({ upTo }) => rows <= upTo) ?? rules[rules.length - 1] ?? table.gpu[2]).tile;
}
