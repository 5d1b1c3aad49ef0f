// Runs where the adapter offers subgroup matrices: on a GPU that has them, or on the driver lavapipe-26.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fitMatrixTile, launchMatmulMatrix, type MatrixTile } from "../../src/kernels/matmul-matrix.ts";
import { matmulReference } from "../reference/matmul.ts";
import { expectClose, openRig } from "./harness.ts";
import {
  awkwardShapes,
  type LaunchForm,
  makeMatmul,
  sumTolerance,
  testEpilogue,
  testForm,
  testHalves,
} from "./matmul-rig.ts";

const rig = await openRig();
const { report } = rig.gpu;

const tiles = [
  { TILE_ROWS: 64, TILE_COLUMNS: 64, SUBGROUP_ROWS: 2, SUBGROUP_COLUMNS: 2, SLICES: 1, DEPTH: 32 },
  { TILE_ROWS: 32, TILE_COLUMNS: 32, SUBGROUP_ROWS: 1, SUBGROUP_COLUMNS: 2, SLICES: 4, DEPTH: 16 },
] as const;
const launchOf =
  (tile: MatrixTile): LaunchForm =>
  (k, given) =>
    launchMatmulMatrix(k, given, tile, report);

/** As on an adapter whose workgroups have room for no more than half of a tile's results. */
const inTwoRounds: LaunchForm = (k, given) => {
  const [tile] = tiles;
  for (let bytes = 32768; bytes > 0; bytes -= 256) {
    const narrow = { ...report, limits: { ...report.limits, maxComputeWorkgroupStorageSize: bytes } };
    const { STORED_MATRICES = 0, COLUMN_MATRICES = 0 } = fitMatrixTile(tile, narrow) ?? {};
    if (STORED_MATRICES < COLUMN_MATRICES) return launchMatmulMatrix(k, given, tile, narrow);
  }
};

testForm(rig, "64x64 tile", inTwoRounds, { type: "f16", shapes: awkwardShapes, largest: 67 });
testForm(rig, "32x32 tile, 4 slices", launchOf(tiles[1]), { type: "f16", shapes: awkwardShapes, largest: 67 });
testEpilogue(rig, launchOf(tiles[1]), "f16");
testHalves(rig, launchOf(tiles[1]));

test("x rounded before gives the bits of x rounded in the tiles", async () => {
  const [tile] = tiles;
  // 128 rows and more are rounded before; the same rows in parts are not.
  const [rows, inputs, columns] = [130, 36, 24];
  const made = await makeMatmul(rig, [rows, inputs, columns], "f16", { bias: true });
  const [all] = await rig.run((k) => [made.run(k, launchOf(tile))]);
  expectClose(all, matmulReference(made.reference), sumTolerance(inputs));
  const part = Array.from(made.reference.x).slice(0, 100 * inputs);
  const x = await rig.tensor("part", [100, inputs], part);
  const [y] = await rig.run((k) => [made.run(k, launchOf(tile), x)]);
  assert.deepEqual(y, all?.slice(0, 100 * columns));
});

test("more workgroups than one dimension holds", async () => {
  const shape = report.matrices.find(({ input, result }) => input === "f16" && result === "f32");
  assert.ok(shape);
  const { M, N, K } = shape;
  const made = await makeMatmul(rig, [65535 * M + 11, 1, 1], "f16", { bias: true });
  const tile = { TILE_ROWS: M, TILE_COLUMNS: N, SUBGROUP_ROWS: 1, SUBGROUP_COLUMNS: 1, SLICES: 1, DEPTH: K };
  const [y] = await rig.run((k) => [made.run(k, launchOf(tile))]);
  expectClose(y, matmulReference(made.reference), sumTolerance(1));
});

test("a tile takes the largest matrices that it divides into, and stores as many at once as there is room for", () => {
  const [tile] = tiles;
  const shape = (M: number, N: number, K: number, input = "f16", result = "f32") => ({ M, N, K, input, result });
  const adapter = {
    features: ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"],
    matrices: [shape(8, 8, 8), shape(16, 16, 16), shape(16, 8, 16), shape(16, 16, 32, "u8", "u32"), shape(16, 16, 64)],
    subgroupMaxSize: 32,
    limits: { maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupStorageSize: 32768 },
  };
  const fitted = fitMatrixTile(tile, adapter);
  assert.deepEqual([fitted?.M, fitted?.N, fitted?.K, fitted?.LANES], [16, 16, 16, 128]);
  assert.deepEqual([fitted?.ROW_MATRICES, fitted?.COLUMN_MATRICES, fitted?.STORED_MATRICES], [2, 2, 2]);
  const narrow = { ...adapter, limits: { ...adapter.limits, maxComputeWorkgroupStorageSize: 16384 } };
  assert.equal(fitMatrixTile(tile, narrow)?.STORED_MATRICES, 1);
  const few = { ...adapter, limits: { ...adapter.limits, maxComputeInvocationsPerWorkgroup: 64 } };
  for (const other of [
    few,
    { ...adapter, features: ["subgroups"] },
    { ...adapter, matrices: [shape(16, 16, 16, "f16", "f16")] },
  ]) {
    assert.equal(fitMatrixTile(tile, other), null);
  }
});

test("an adapter that cannot run a tile is told by what it offers", async () => {
  const made = await makeMatmul(rig, [1, 4, 4], "f16");
  const tile = { TILE_ROWS: 60, TILE_COLUMNS: 64, SUBGROUP_ROWS: 1, SUBGROUP_COLUMNS: 1, SLICES: 1, DEPTH: 32 };
  await assert.rejects(
    rig.run((k) => [made.run(k, launchOf(tile))]),
    /KernelError: matmul-matrix: expected matrices of f16 to f32 that a tile of .*60.* divides into.*f16 to f32/,
  );
});
