// The forms of matmul, each a shader of its own: what a table may say of them, what they need, how they are launched.

import { z } from "zod";
import { KernelError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { ElementType } from "../gpu/tensor.ts";
import type { Needs } from "../gpu/variants.ts";
import { fewRowsBytes, launchMatmulFewRows } from "./matmul-few-rows.ts";
import type { MatmulLaunch } from "./matmul-launch.ts";
import { fitMatrixTile, launchMatmulMatrix, matrixFeatures } from "./matmul-matrix.ts";
import { launchMatmulTiled, tiledBytes } from "./matmul-tiled.ts";

const size = z.number().int().min(1);
const four = size.multipleOf(4);
const powerOfTwo = size.refine((value) => (value & (value - 1)) === 0, "expected a power of two");

/**
 * Constants of shaders/matmul.wgsl: invocations of a workgroup, rows and groups of four columns per invocation; with LANES how
 * many of them load inputs for each other, and how many inputs they take in one step: both at most, inputs permitting.
 */
const register = z.strictObject({
  shader: z.literal("matmul"),
  WORKGROUP: size,
  ROWS: size,
  VECS: size,
  LANES: powerOfTwo.default(1),
  STEPS: powerOfTwo.default(1),
});

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

export const matmulForm = z.discriminatedUnion("shader", [register, tiled, fewRows, matrix]);
export type MatmulForm = z.infer<typeof matmulForm>;
export type RegisterTile = z.infer<typeof register>;

/** What a form asks of an adapter. */
export function formNeeds(form: MatmulForm): Needs {
  switch (form.shader) {
    case "matmul":
      return { subgroup: form.LANES, limits: invocationLimits(form.WORKGROUP) };
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

function invocationLimits(invocations: number) {
  return { maxComputeInvocationsPerWorkgroup: invocations, maxComputeWorkgroupSizeX: invocations };
}

function workgroupNeeds(invocations: number, bytes: number): Needs {
  return { limits: { ...invocationLimits(invocations), maxComputeWorkgroupStorageSize: bytes } };
}

/** What weights each form multiplies. */
export const formTypes: Readonly<Record<MatmulForm["shader"], readonly ElementType[]>> = {
  matmul: ["f32", "f16", "int8", "int4"],
  "matmul-tiled": ["f32", "f16", "int8", "int4"],
  "matmul-few-rows": ["f32", "f16", "int8", "int4"],
  "matmul-matrix": ["f16"],
};

/** The forms that are launched from files of their own. @throws KernelError for weights that the form does not multiply, where a table chose it for them */
export function launchForm(k: Recorder, given: MatmulLaunch, form: Exclude<MatmulForm, RegisterTile>): void {
  const types = formTypes[form.shader];
  if (!types.includes(given.weight.type)) {
    throw new KernelError(`${form.shader}: expected weights of ${types.join(" or ")}, got ${given.weight.type}`);
  }
  if (form.shader === "matmul-tiled") launchMatmulTiled(k, given, form);
  else if (form.shader === "matmul-few-rows") launchMatmulFewRows(k, given, form);
  else launchMatmulMatrix(k, given, form, k.variants.report);
}
