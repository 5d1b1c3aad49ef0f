// The variants of matmul, and the classes of shapes that choose among them.

import type { Operation } from "../gpu/variants.ts";
import { type CountClass, classOfCount } from "./count-classes.ts";
import { formNeeds, type MatmulForm, matmulForm } from "./matmul-forms.ts";
import type { WeightType } from "./weights.ts";

/** Types of weights that have variants of their own. */
export const matmulTypes: readonly WeightType[] = ["f32", "f16", "int8", "int4"];

/** The most rows of each class, and its name. */
const rowClasses: readonly CountClass[] = [
  { most: 1, name: "1 row" },
  { most: 4, name: "2 to 4 rows" },
  { most: 8, name: "5 to 8 rows" },
  { most: 16, name: "9 to 16 rows" },
  { most: 64, name: "17 to 64 rows" },
  { most: Number.POSITIVE_INFINITY, name: "more rows" },
];

export const matmulOperation: Operation<MatmulForm> = {
  name: "matmul",
  classes: matmulTypes.flatMap((type) => rowClasses.map(({ name }) => `${type}, ${name}`)),
  variant: matmulForm,
  needs: formNeeds,
};

/** @param type of the weights */
export function matmulClass(type: WeightType, rows: number): string {
  return `${type}, ${classOfCount(rowClasses, rows)}`;
}
