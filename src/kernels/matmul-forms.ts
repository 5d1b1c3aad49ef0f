// The forms of matmul for GPUs, each a shader of its own: what a table may say of them, what they need, how they are launched.

import { z } from "zod";
import type { Recorder } from "../gpu/recorder.ts";
import type { Needs } from "../gpu/variants.ts";
import { fewRowsBytes, launchMatmulFewRows } from "./matmul-few-rows.ts";
import type { MatmulLaunch } from "./matmul-launch.ts";
import { fitMatrixTile, launchMatmulMatrix, matrixFeatures } from "./matmul-matrix.ts";
import { launchMatmulTiled, tiledBytes } from "./matmul-tiled.ts";

const size = z.number().int().min(1);
const four = size.multipleOf(4);

const tiled = z.strictObject({
  shader: z.literal("matmul-tiled"),
  ROW_LANES: size,
  COLUMN_LANES: size,
  ROWS: four,
  VECS: size,
  DEPTH: four,
});

const fewRows = z.strictObject({
  shader: z.literal("matmul-few-rows"),
  ROWS: z.literal([1, 2, 4, 8]),
  GROUPS: size,
  SLICES: size,
  TURNS: size,
});

const matrix = z.strictObject({
  shader: z.literal("matmul-matrix"),
  TILE_ROWS: size,
  TILE_COLUMNS: four,
  SUBGROUP_ROWS: size,
  SUBGROUP_COLUMNS: size,
  SLICES: size,
  DEPTH: four,
});

export const matmulForms = [tiled, fewRows, matrix] as const;
export type MatmulForm = z.infer<(typeof matmulForms)[number]>;

/** What a form asks of an adapter. */
export function formNeeds(form: MatmulForm): Needs {
  switch (form.shader) {
    case "matmul-tiled":
      return workgroupNeeds(form.ROW_LANES * form.COLUMN_LANES, tiledBytes(form));
    case "matmul-few-rows":
      return workgroupNeeds(form.GROUPS * form.SLICES, fewRowsBytes(form));
    case "matmul-matrix":
      return {
        features: matrixFeatures,
        unfit: (report) =>
          fitMatrixTile(form, report) ? null : "its tile does not divide into the adapter's matrices",
      };
  }
}

function workgroupNeeds(invocations: number, bytes: number): Needs {
  const most = { maxComputeInvocationsPerWorkgroup: invocations, maxComputeWorkgroupSizeX: invocations };
  return { limits: { ...most, maxComputeWorkgroupStorageSize: bytes } };
}

export function launchForm(k: Recorder, given: MatmulLaunch, form: MatmulForm): void {
  if (form.shader === "matmul-tiled") launchMatmulTiled(k, given, form);
  else if (form.shader === "matmul-few-rows") launchMatmulFewRows(k, given, form);
  else launchMatmulMatrix(k, given, form, k.variants.report);
}
