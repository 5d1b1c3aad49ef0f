// matmul for the few rows of decoding on a GPU. Shader: shaders/matmul-few-rows.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { type MatmulLaunch, matmulBindings, matmulSizes, weightNumbers } from "./matmul-launch.ts";
import type { WeightType } from "./weights.ts";
import { overTwo } from "./workgroups.ts";

/** Constants of the shader. */
export interface FewRowsTile {
  /** The most rows of a workgroup; fewer are taken where there are fewer. */
  readonly ROWS: number;
  readonly GROUPS: number;
  readonly SLICES: number;
  readonly TURNS: number;
}

export function launchMatmulFewRows(k: Recorder, given: MatmulLaunch, tile: FewRowsTile): void {
  const { rows, inputs, stride } = matmulSizes(given);
  const { GROUPS, SLICES, TURNS } = tile;
  const { constants, ...bindings } = matmulBindings(given);
  // The next power of two: few shaders to compile, and no row's bits depend on it.
  const ROWS = Math.min(tile.ROWS, 2 ** Math.ceil(Math.log2(rows)));
  k.launch("matmul-few-rows", {
    ...bindings,
    constants: {
      ...constants,
      ...{ ROWS, GROUPS, SLICES, TURNS },
      WEIGHT: weightNumbers[given.weight.type as WeightType],
      FOURS: inputs % 4 === 0 ? "true" : "false",
    },
    workgroups: [Math.ceil(stride / (4 * GROUPS)), ...overTwo(Math.ceil(rows / ROWS))],
  });
}

/** Bytes of workgroup memory that a tile takes at most. */
export function fewRowsBytes({ ROWS, GROUPS, SLICES, TURNS }: FewRowsTile): number {
  return 16 * SLICES * Math.max(ROWS * TURNS, Math.min(ROWS, 4) * GROUPS);
}
