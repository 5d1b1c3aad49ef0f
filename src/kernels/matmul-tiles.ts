// Which tile of matmul serves which number of rows on which kind of adapter.

import type { WeightType } from "./weights.ts";

/** Constants of shaders/matmul.wgsl: invocations of a workgroup, rows and groups of four columns per invocation. */
export interface MatmulTile {
  readonly WORKGROUP: number;
  readonly ROWS: number;
  readonly VECS: number;
}

/**
 * Measured on lavapipe 25.0 (256-bit vectors, two cores), best of those tried: (256 x 1408)·(1408 x 1408) with 8 x 4
 * 28 ms, with 16 x 4 34 to 45, with 8 x 2 31; (1 x 1408)·(1408 x 6144) with 1 x 2 2.6 ms, with 1 x 1 3.5; 5 rows of it
 * with 8 x 4 as with 8 x 2 or 8 x 3, 4.5. One row of f16 wants 1 x 4: (1 x 2560)·(2560 x 10240) takes 14 ms of processor
 * time with it, with 1 x 1 18, with 1 x 2 58, and of int8 9, of int4 9 (with 1 x 2 13 and 14, with 1 x 8 15 and 10); on SwiftShader, too, 1 x 4 is faster than 1 x 2, by a third. Few tiles, because
 * the driver compiles each for up to half a second.
 * GPUs want many invocations; their tiles are a guess that has not been measured.
 */
const table = {
  software: {
    oneRow: {
      f32: { WORKGROUP: 8, ROWS: 1, VECS: 2 },
      f16: { WORKGROUP: 8, ROWS: 1, VECS: 4 },
      int8: { WORKGROUP: 8, ROWS: 1, VECS: 4 },
      int4: { WORKGROUP: 8, ROWS: 1, VECS: 4 },
    },
    manyRows: { WORKGROUP: 8, ROWS: 8, VECS: 4 },
  },
  gpu: {
    oneRow: {
      f32: { WORKGROUP: 32, ROWS: 1, VECS: 1 },
      f16: { WORKGROUP: 32, ROWS: 1, VECS: 1 },
      int8: { WORKGROUP: 32, ROWS: 1, VECS: 1 },
      int4: { WORKGROUP: 32, ROWS: 1, VECS: 1 },
    },
    manyRows: { WORKGROUP: 64, ROWS: 8, VECS: 1 },
  },
} as const;

/** @param type of the weights */
export function matmulTile(softwareAdapter: boolean, rows: number, type: WeightType): MatmulTile {
  const tiles = table[softwareAdapter ? "software" : "gpu"];
  return rows === 1 ? tiles.oneRow[type] : tiles.manyRows;
}
