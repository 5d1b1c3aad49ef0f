// matmul with f16 weights on subgroup matrices (tensor cores). Shader: shaders/matmul-matrix.wgsl

import type { AdapterReport, MatrixShape } from "../gpu/adapter.ts";
import { KernelError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { handOver } from "./hand-over.ts";
import { type MatmulLaunch, matmulBindings, matmulSizes } from "./matmul-launch.ts";
import { overTwo } from "./workgroups.ts";

/** How the work is laid out, whatever matrices the adapter has. */
export interface MatrixTile {
  readonly TILE_ROWS: number;
  readonly TILE_COLUMNS: number;
  /** Subgroups over the rows and over the columns of a tile, and slices of the inputs. */
  readonly SUBGROUP_ROWS: number;
  readonly SUBGROUP_COLUMNS: number;
  readonly SLICES: number;
  /** Inputs of a slice in one step. */
  readonly DEPTH: number;
}

type MatrixAdapter = Pick<AdapterReport, "matrices" | "features" | "subgroupMaxSize" | "limits">;

export const matrixFeatures: readonly string[] = ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"];

/** From so many rows on x is rounded once, in a launch of its own, rather than in every tile of columns. */
const rowsRoundedBefore = 128;

/** @throws KernelError where the adapter cannot run this tile */
export function launchMatmulMatrix(k: Recorder, given: MatmulLaunch, tile: MatrixTile, adapter: MatrixAdapter): void {
  const fitted = fitMatrixTile(tile, adapter);
  if (fitted === null) {
    const offered = adapter.matrices.map(({ M, N, K, input, result }) => `${M}x${N}x${K} ${input} to ${result}`);
    throw new KernelError(
      `matmul-matrix: expected matrices of f16 to f32 that a tile of ${JSON.stringify(tile)} divides into, and room for it, ` +
        `got ${offered.join(", ") || "none"}`,
    );
  }
  const { rows, inputs, stride } = matmulSizes(given);
  const before = rows >= rowsRoundedBefore && inputs % 4 === 0;
  const { constants, ...bindings } = matmulBindings(given);
  k.launch("matmul-matrix", {
    ...bindings,
    inputs: { ...bindings.inputs, x: before ? handOver(k, given.x, "f16") : given.x },
    constants: {
      ...constants,
      ...fitted,
      X_F16: before ? "true" : "false",
      FOURS: inputs % 4 === 0 ? "true" : "false",
    },
    workgroups: [Math.ceil(stride / tile.TILE_COLUMNS), ...overTwo(Math.ceil(rows / tile.TILE_ROWS))],
  });
}

/** The shader's constants for the largest of the adapter's matrices that the tile divides into; null where none does. */
export function fitMatrixTile(tile: MatrixTile, adapter: MatrixAdapter): Readonly<Record<string, number>> | null {
  if (!matrixFeatures.every((each) => adapter.features.includes(each))) return null;
  const size = ({ M, N, K }: MatrixShape) => M * N * K;
  const shapes = adapter.matrices.filter(({ input, result }) => input === "f16" && result === "f32");
  for (const shape of [...shapes].sort((a, b) => size(b) - size(a))) {
    const fitted = fit(tile, shape, adapter);
    if (fitted) return fitted;
  }
  return null;
}

function fit(
  { TILE_ROWS, TILE_COLUMNS, SUBGROUP_ROWS, SUBGROUP_COLUMNS, SLICES, DEPTH }: MatrixTile,
  { M, N, K }: MatrixShape,
  { subgroupMaxSize, limits }: MatrixAdapter,
): Readonly<Record<string, number>> | null {
  const ROW_MATRICES = TILE_ROWS / SUBGROUP_ROWS / M;
  const COLUMN_MATRICES = TILE_COLUMNS / SUBGROUP_COLUMNS / N;
  if (![ROW_MATRICES, COLUMN_MATRICES, DEPTH / K, N / 4, K / 4].every(Number.isInteger)) return null;
  const subgroups = SUBGROUP_ROWS * SUBGROUP_COLUMNS * SLICES;
  const LANES = subgroups * subgroupMaxSize;
  const { maxComputeInvocationsPerWorkgroup: mostLanes = 0, maxComputeWorkgroupStorageSize: room = 0 } = limits;
  if (LANES > mostLanes) return null;
  const inputs = SLICES * DEPTH;
  const copied = 2 * (TILE_ROWS * (inputs + 8) + inputs * (TILE_COLUMNS + 8));
  // Results leave in as few rounds as there is room for.
  for (let STORED_MATRICES = COLUMN_MATRICES; STORED_MATRICES > 0; STORED_MATRICES--) {
    if (COLUMN_MATRICES % STORED_MATRICES !== 0 || copied + 4 * subgroups * M * N * STORED_MATRICES > room) continue;
    const matrices = { M, N, K, ROW_MATRICES, COLUMN_MATRICES, STORED_MATRICES };
    return { ...matrices, LANES, SUBGROUP_ROWS, SUBGROUP_COLUMNS, SLICES, DEPTH };
  }
  return null;
}
