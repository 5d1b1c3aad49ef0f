// Which rows of which stored matrices become the columns of a Linear that several are stacked into.

import { WeightsError } from "../errors.ts";
import { type LinearNames, type RowRun, rowRuns } from "./tensor-names.ts";

/** Neighbouring columns of the whole, and the rows of one of its Linears that they are. */
export interface StackedRun extends RowRun {
  readonly linear: LinearNames;
}

/** Of all of them together. */
export function columnsOf(parts: readonly LinearNames[]): number {
  return parts.reduce((sum, { columns }) => sum + columns, 0);
}

/** The columns [from, from + width) of the whole as runs of stored rows. */
export function stackedRuns(parts: readonly LinearNames[], from: number, width: number): readonly StackedRun[] {
  let before = 0;
  return parts.flatMap((linear) => {
    const first = before;
    before += linear.columns;
    const start = Math.max(from - first, 0);
    const end = Math.min(from + width - first, linear.columns);
    if (start >= end) return [];
    return rowRuns(linear.part, start, end - start).map((run) => ({ ...run, linear, column: first + run.column }));
  });
}

/** What Linears side by side have in common. @throws WeightsError where they do not */
export function formOf(parts: readonly LinearNames[]): Pick<LinearNames, "inputs" | "keeps" | "bias"> {
  const [first] = parts;
  const same = ({ inputs, keeps, bias }: LinearNames) =>
    inputs === first?.inputs && keeps === first.keeps && (bias === null) === (first.bias === null);
  if (first && parts.every(same)) return first;
  const got = parts.map(
    ({ weight, bias }) => `${weight.name} (${weight.shape.join(", ")})${bias ? " with a bias" : ""}`,
  );
  throw new WeightsError("stacked matrices", [
    `expected the same inputs and type, all or none with a bias, got ${got.join("; ")}`,
  ]);
}
