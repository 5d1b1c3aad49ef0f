// Which of the measured variants a table gets.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { AdapterReport } from "../../src/gpu/adapter.ts";
import type { TuningTable } from "../../src/gpu/tuning-table.ts";
import { type Candidate, type ClassResult, chooseTogether } from "../../src/tuning/measure.ts";
import { newTable } from "../../src/tuning/new-table.ts";

/** Sizes of a variant's one constant by their times; the larger are compiled longer. */
function result(shapeClass: string, times: Readonly<Record<number, number>>, group = ""): ClassResult {
  const candidates = Object.entries(times)
    .map(([text, milliseconds]): Candidate => {
      const size = Number(text);
      return { variant: { size }, milliseconds, compiled: size, problem: null };
    })
    .sort((a, b) => (a.milliseconds ?? 0) - (b.milliseconds ?? 0));
  const wrong: Candidate = { variant: { size: 99 }, milliseconds: null, compiled: 0, problem: "wrong" };
  const [chosen] = candidates;
  assert.ok(chosen);
  const about = { operation: "double", shapeClass, group, measured: "a case" };
  return { ...about, candidates: [...candidates, wrong], usual: null, chosen };
}

const sizes = (results: readonly ClassResult[]) => results.map(({ chosen }) => chosen.variant.size);

test("classes of a group share a variant that is as fast as the fastest, and no slower one", () => {
  const results = [
    result("a", { 4: 10, 5: 10.4, 6: 20 }),
    result("b", { 5: 5, 6: 5.2 }),
    result("c", { 6: 1, 5: 1.2 }),
    result("d", { 4: 3, 5: 3.1 }, "another"),
  ];
  assert.deepEqual(sizes(chooseTogether(results)), [5, 5, 6, 4]);
});

test("of variants that are equally fast the one that is compiled fastest is taken", () => {
  assert.deepEqual(sizes(chooseTogether([result("a", { 4: 10, 2: 10.4 })])), [2]);
  assert.deepEqual(sizes(chooseTogether([result("a", { 3: 10, 2: 11.5 })])), [3], "but not a slower one");
  assert.deepEqual(sizes(chooseTogether([result("a", { 4: 10, 2: 12 })])), [2], "unless it saves half the compilation");
  assert.deepEqual(sizes(chooseTogether([result("a", { 4: 10, 2: 13 })])), [4], "and is not too slow");
  assert.deepEqual(sizes(chooseTogether([result("a", { 0.4: 10, 0.1: 12 })])), [0.4], "or there is little to save");
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
  const [chosen] = chooseTogether([result("a", times), result("z", { 2: 1 })]);
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
