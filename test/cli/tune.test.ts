// blipfleet tune: what it writes is what is used from then on.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openGpu } from "../../src/gpu/device.ts";
import { ownTableFile, readTable } from "../../src/gpu/tuning-table.ts";
import { matmulOperation } from "../../src/kernels/matmul-variants.ts";
import { quickly } from "../../src/tuning/measure.ts";
import { refuseNothing } from "../kernels/families.ts";
import { runCli } from "./run-cli.ts";

const cacheFolder = mkdtempSync(join(tmpdir(), "tune-"));
after(() => rmSync(cacheFolder, { recursive: true }));
const run = (...args: string[]) => runCli(["tune", ...args], { ...process.env, BLIPFLEET_CACHE: cacheFolder });

test("what cannot be measured, or would be lost, is wrong use", async () => {
  const nothing = await run("--only", "nothing");
  assert.deepEqual([nothing.status, nothing.stdout], [2, ""]);
  assert.match(nothing.stderr, /--only: expected a part of one of matmul, f32, 1 row; .*, got "nothing"/);
  const file = join(cacheFolder, "mine.json");
  writeFileSync(file, "{}");
  const other = await run("--output", file, "--quick");
  assert.deepEqual([other.status, other.stdout, readFileSync(file, "utf8")], [2, "", "{}"]);
  assert.match(other.stderr, /mine\.json: expected a tuning table, got .*; name another file, or delete it/);
});

test("a class is measured, told and used from then on; the next measurement leaves it in its place", async () => {
  const { status, stdout, stderr } = await run("--quick", "--only", "f16, 1 row", "--format", "jsonl");
  assert.equal(status, 0, stderr);
  const [line = "", ...others] = stdout.trimEnd().split("\n");
  assert.deepEqual(others, []);
  const told = JSON.parse(line);
  assert.deepEqual([told.operation, told.shape_class], ["matmul", "f16, 1 row"]);
  assert.equal(told.measured, "(1 x 2560) x (2560 x 2560) f16");
  assert.ok(told.candidates.length >= 3, line);
  for (const { problem, milliseconds } of told.candidates) {
    assert.equal(problem, null);
    assert.ok(milliseconds > 0);
  }
  const best = Math.min(...told.candidates.map((each: { milliseconds: number }) => each.milliseconds));
  assert.ok(told.milliseconds <= best * (1 + quickly.slower), line);
  assert.ok(Math.abs(told.speedup - told.default_milliseconds / told.milliseconds) < 1e-9, line);
  assert.match(
    stderr,
    /tune: 1 of 1: matmul, f16, 1 row\ntune: fastest of \d+: .*\n(.*\n)*tune: wrote .*, which is used from now on\n$/,
  );

  const gpu = await openGpu({ nap: true, cacheFolder, tell: refuseNothing });
  gpu.close();
  const file = ownTableFile(cacheFolder, gpu.report);
  assert.equal(gpu.variants.tables[0]?.file, file);
  const choice = gpu.variants.choose(matmulOperation, "f16, 1 row");
  assert.deepEqual([choice.variant, choice.table], [told.chosen, file]);
  assert.notEqual(gpu.variants.choose(matmulOperation, "f32, 1 row").table, file);
  const { table } = readTable(file);
  assert.equal(table.measured?.driver, gpu.report.description);
  assert.match(table.measured?.how ?? "", /^blipfleet tune --quick --only f16, 1 row, medians of wall time$/);
  const entry = table.operations.matmul?.["f16, 1 row"];
  assert.deepEqual(entry?.variants[0]?.variant, told.chosen);

  const text = await run("--quick", "--only", "f32, 1 row", "--clock", "processor");
  assert.equal(text.status, 0, text.stderr);
  assert.match(text.stdout, /^matmul, f32, 1 row: shader matmul WORKGROUP \d+ .* ms of \(1 x 2560\) .*; .*default/);
  const both = readTable(file).table.operations.matmul ?? {};
  assert.deepEqual(Object.keys(both).sort(), ["f16, 1 row", "f32, 1 row"]);
  assert.deepEqual(both["f16, 1 row"], entry);
  assert.ok(!existsSync(join(cacheFolder, "self-test")), "nothing but the table is written");
});
