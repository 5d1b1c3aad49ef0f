// Which of the measured variants a table gets.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { AdapterReport } from "../../src/gpu/adapter.ts";
import type { TuningTable } from "../../src/gpu/tuning-table.ts";
import { type Candidate, type ClassResult, chooseTogether } from "../../src/tuning/measure.ts";
import { newTable } from "../../src/tuning/new-table.ts";

/** Sizes of a variant's one constant by their times; `usual` is what runs without the measurement. */
function result(shapeClass: string, times: Readonly<Record<number, number>>, usual?: number): ClassResult {
  const candidates = Object.entries(times)
    .map(([size, milliseconds]): Candidate => ({ variant: { size: Number(size) }, milliseconds, problem: null }))
    .sort((a, b) => (a.milliseconds ?? 0) - (b.milliseconds ?? 0));
  const wrong: Candidate = { variant: { size: 99 }, milliseconds: null, problem: "wrong" };
  const [chosen] = candidates;
  assert.ok(chosen);
  const named = candidates.find(({ variant }) => variant.size === usual) ?? null;
  return {
    operation: "double",
    shapeClass,
    measured: "a case",
    candidates: [...candidates, wrong],
    usual: named,
    chosen,
  };
}

const sizes = (results: readonly ClassResult[]) => results.map(({ chosen }) => chosen.variant.size);

test("classes share a variant that is as fast as the fastest, and no slower one", () => {
  const together = chooseTogether([
    result("a", { 1: 10, 2: 10.5, 4: 20 }),
    result("b", { 2: 5, 4: 5.2 }),
    result("c", { 4: 1, 2: 1.2 }),
  ]);
  assert.deepEqual(sizes(together), [2, 2, 4]);
  assert.deepEqual(sizes(chooseTogether([result("a", { 1: 10, 2: 10.5 }, 2)])), [2], "what runs already, of equals");
  assert.deepEqual(sizes(chooseTogether([result("a", { 1: 10, 2: 11.5 }, 2)])), [1], "but not a slower one");
});

const report: AdapterReport = {
  vendor: "v",
  architecture: "",
  device: "d",
  description: "driver 1",
  softwareAdapter: true,
  subgroupMinSize: 8,
  subgroupMaxSize: 8,
  features: [],
  matrices: [],
  limits: {},
  toggles: [],
};

test("a table has what was chosen first, then the faster of what is right, and keeps other classes", () => {
  const times = { 1: 10.1234, 2: 10.5, 4: 20, 8: 30, 16: 40 };
  const [chosen] = chooseTogether([result("a", times, 2)]);
  assert.ok(chosen);
  const made = newTable(null, report, [chosen], "by hand");
  assert.deepEqual(made.adapter, { vendor: "v", device: "d" });
  assert.deepEqual([made.measured?.driver, made.measured?.how], ["driver 1", "by hand"]);
  assert.deepEqual(made.operations.double?.a?.variants, [
    { variant: { size: 2 }, milliseconds: 10.5 },
    { variant: { size: 1 }, milliseconds: 10.1 },
    { variant: { size: 4 }, milliseconds: 20 },
    { variant: { size: 8 }, milliseconds: 30 },
  ]);
  const base: TuningTable = { ...made, adapter: { vendor: "v", device: "any" } };
  const both = newTable(base, report, [result("b", { 4: 1 })], "again");
  assert.deepEqual(both.adapter, { vendor: "v", device: "any" });
  assert.deepEqual(both.operations.double?.a, made.operations.double?.a);
  assert.deepEqual(both.operations.double?.b?.variants, [{ variant: { size: 4 }, milliseconds: 1 }]);
});
