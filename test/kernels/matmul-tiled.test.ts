import assert from "node:assert/strict";
import { test } from "node:test";
import { launchMatmulTiled, type TiledTile, tiledBytes } from "../../src/kernels/matmul-tiled.ts";
import { matmulReference } from "../reference/matmul.ts";
import { expectClose, openRig } from "./harness.ts";
import {
  awkwardShapes,
  type LaunchForm,
  makeMatmul,
  registerForm,
  sumTolerance,
  testEpilogue,
  testForm,
  testHalves,
} from "./matmul-rig.ts";

const rig = await openRig();

/** Small, because a driver compiles each for a second and more; neither is like the shader's own. */
const [wide, tall] = [
  { ROW_LANES: 2, COLUMN_LANES: 8, ROWS: 4, VECS: 2, DEPTH: 4 },
  { ROW_LANES: 8, COLUMN_LANES: 2, ROWS: 8, VECS: 1, DEPTH: 8 },
] as const;
const launchOf =
  (tile: TiledTile): LaunchForm =>
  (k, given) =>
    launchMatmulTiled(k, given, tile);

testForm(rig, "8x64 tile, f16 weights", launchOf(wide), { type: "f16", shapes: awkwardShapes, largest: 67 });
testForm(rig, "64x8 tile, f32 weights", launchOf(tall), { type: "f32", shapes: awkwardShapes, largest: 67 });
testForm(rig, "8x64 tile, int8 weights", launchOf(wide), { type: "int8", shapes: awkwardShapes, largest: 67 });
testForm(rig, "64x8 tile, int4 weights", launchOf(tall), { type: "int4", shapes: awkwardShapes, largest: 67 });
testEpilogue(rig, launchOf({ ROW_LANES: 2, COLUMN_LANES: 8, ROWS: 4, VECS: 1, DEPTH: 4 }), "f32");
testHalves(rig, launchOf(wide));

test("the bits are those of matmul.wgsl", async () => {
  for (const [type, inputs, tile] of [
    ["f32", 130, tall],
    ["f16", 132, wide],
    ["int8", 131, wide],
    ["int4", 130, tall],
  ] as const) {
    const made = await makeMatmul(rig, [21, inputs, 50], type, { bias: true });
    const [tiled, untiled] = await rig.run((k) => [made.run(k, launchOf(tile)), made.run(k, registerForm)]);
    assert.deepEqual(tiled, untiled, type);
  }
});

test("more workgroups than one dimension holds", async () => {
  const rows = 65535 * 4 + 11;
  const made = await makeMatmul(rig, [rows, 1, 1], "f32", { bias: true });
  const launch = launchOf({ ROW_LANES: 1, COLUMN_LANES: 1, ROWS: 4, VECS: 1, DEPTH: 4 });
  const [y] = await rig.run((k) => [made.run(k, launch)]);
  expectClose(y, matmulReference(made.reference), sumTolerance(1));
});

test("a tile's workgroup memory", () => {
  assert.deepEqual([wide, tall].map(tiledBytes), [4 * 4 * (8 + 64), 4 * 8 * (64 + 8)]);
});
