// matmul for many rows on a GPU. Shader: shaders/matmul-tiled.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { type MatmulLaunch, matmulBindings, matmulSizes, weightNumbers } from "./matmul-launch.ts";
import type { WeightType } from "./weights.ts";
import { overTwo } from "./workgroups.ts";

/** Constants of the shader. ROWS is a multiple of 4, DEPTH too. */
export interface TiledTile {
  readonly ROW_LANES: number;
  readonly COLUMN_LANES: number;
  readonly ROWS: number;
  readonly VECS: number;
  readonly DEPTH: number;
}

export function launchMatmulTiled(k: Recorder, given: MatmulLaunch, tile: TiledTile): void {
  const { ROW_LANES, COLUMN_LANES, ROWS, VECS, DEPTH } = tile;
  const { rows, inputs, stride } = matmulSizes(given);
  const { constants, ...bindings } = matmulBindings(given);
  k.launch("matmul-tiled", {
    ...bindings,
    constants: {
      ...constants,
      ...{ ROW_LANES, COLUMN_LANES, ROWS, VECS, DEPTH },
      WEIGHT: weightNumbers[given.weight.type as WeightType],
      FOURS: inputs % 4 === 0 ? "true" : "false",
    },
    workgroups: [Math.ceil(stride / (4 * COLUMN_LANES * VECS)), ...overTwo(Math.ceil(rows / (ROW_LANES * ROWS)))],
  });
}

/** Bytes of workgroup memory that a tile takes. */
export function tiledBytes({ ROW_LANES, COLUMN_LANES, ROWS, VECS, DEPTH }: TiledTile): number {
  return 4 * DEPTH * (ROW_LANES * ROWS + 4 * COLUMN_LANES * VECS);
}
