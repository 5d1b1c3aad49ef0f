// The variants of matmul, and the classes of shapes that choose among them.

import { z } from "zod";
import type { Operation } from "../gpu/variants.ts";
import { formNeeds, matmulForms } from "./matmul-forms.ts";
import type { WeightType } from "./weights.ts";

const size = z.number().int().min(1);

const powerOfTwo = size.refine((value) => (value & (value - 1)) === 0, "expected a power of two");

/**
 * Constants of shaders/matmul.wgsl: invocations of a workgroup, rows and groups of four columns per invocation; with LANES how
 * many of them load inputs for each other, and how many inputs they take in one step: both at most, inputs permitting.
 */
const registerTile = z.strictObject({
  shader: z.literal("matmul"),
  WORKGROUP: size,
  ROWS: size,
  VECS: size,
  LANES: powerOfTwo.default(1),
  STEPS: powerOfTwo.default(1),
});

const variant = z.discriminatedUnion("shader", [registerTile, ...matmulForms]);

export type MatmulVariant = z.infer<typeof variant>;

/** Types of weights that have variants of their own. */
export const matmulTypes: readonly WeightType[] = ["f32", "f16", "int8", "int4"];

/** The most rows of each class, and its name. */
const rowClasses = [
  { most: 1, name: "1 row" },
  { most: 4, name: "2 to 4 rows" },
  { most: 16, name: "5 to 16 rows" },
  { most: 64, name: "17 to 64 rows" },
  { most: Number.POSITIVE_INFINITY, name: "more rows" },
] as const;

export const matmulOperation: Operation<MatmulVariant> = {
  name: "matmul",
  classes: matmulTypes.flatMap((type) => rowClasses.map(({ name }) => `${type}, ${name}`)),
  variant,
  needs(given) {
    if (given.shader !== "matmul") return formNeeds(given);
    const { WORKGROUP, LANES } = given;
    return {
      subgroup: LANES,
      limits: { maxComputeInvocationsPerWorkgroup: WORKGROUP, maxComputeWorkgroupSizeX: WORKGROUP },
    };
  },
};

/** @param type of the weights */
export function matmulClass(type: WeightType, rows: number): string {
  const { name } = rowClasses.find(({ most }) => rows <= most) ?? rowClasses[4];
  return `${type}, ${name}`;
}
