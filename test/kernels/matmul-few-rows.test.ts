import assert from "node:assert/strict";
import { test } from "node:test";
import { type FewRowsTile, fewRowsBytes, launchMatmulFewRows } from "../../src/kernels/matmul-few-rows.ts";
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

/** Small, because a driver compiles each, for one, two, four and more rows, for a second. */
const [wide, deep] = [
  { ROWS: 8, GROUPS: 4, SLICES: 4, TURNS: 1 },
  { ROWS: 2, GROUPS: 2, SLICES: 8, TURNS: 3 },
] as const;
const launchOf =
  (tile: FewRowsTile): LaunchForm =>
  (k, given) =>
    launchMatmulFewRows(k, given, tile);
const shapes = awkwardShapes.filter(([rows]) => rows <= 33);

testForm(rig, "f16 weights, 8 rows", launchOf(wide), { type: "f16", shapes, largest: 19 });
testForm(rig, "f32 weights, 2 rows", launchOf(deep), { type: "f32", shapes, largest: 7 });
for (const type of ["int8", "int4"] as const) {
  const some = shapes.filter(([rows]) => rows <= 2 || rows === 31);
  testForm(rig, `${type} weights`, launchOf({ ROWS: 2, GROUPS: 4, SLICES: 4, TURNS: 2 }), {
    type,
    shapes: some,
    largest: 7,
  });
}
testEpilogue(rig, launchOf({ ROWS: 1, GROUPS: 4, SLICES: 2, TURNS: 1 }), "f32");
testHalves(rig, launchOf(wide));

test("more workgroups than one dimension holds", async () => {
  const rows = 65535 * 2 + 11;
  const made = await makeMatmul(rig, [rows, 1, 1], "f32", { bias: true });
  const launch = launchOf({ ROWS: 2, GROUPS: 1, SLICES: 2, TURNS: 1 });
  const [y] = await rig.run((k) => [made.run(k, launch)]);
  expectClose(y, matmulReference(made.reference), sumTolerance(1));
});

test("a tile's workgroup memory", () => {
  assert.deepEqual([wide, deep].map(fewRowsBytes), [16 * 4 * 16, 16 * 8 * 6]);
});
