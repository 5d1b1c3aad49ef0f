import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openGpu } from "../../src/gpu/device.ts";
import { attentionOperation } from "../../src/kernels/attention-variants.ts";
import { matmulOperation } from "../../src/kernels/matmul-variants.ts";
import { selfTest } from "../../src/kernels/self-test.ts";
import { operations } from "../../src/tuning/operations.ts";
import { openWithTable, testTable } from "../gpu/own-table.ts";
import { breakShaders } from "./broken-shader.ts";
import { refuseNothing } from "./families.ts";

test("this adapter passes, and nothing stays allocated", async () => {
  const gpu = await openGpu({ nap: true });
  const before = gpu.allocatedBytes;
  await selfTest(gpu);
  const after = gpu.allocatedBytes;
  await selfTest(gpu);
  assert.equal(gpu.allocatedBytes, after, "a second run takes no more");
  assert.ok(after - before < 1 << 20, `${after - before} bytes are kept for reading and pooled scratch`);
  gpu.close();
});

test("it meets every class of every operation that comes in variants", async () => {
  const gpu = await openGpu({ nap: true, tell: refuseNothing });
  await selfTest(gpu);
  const met = gpu.variants.describe().choices.map(({ operation, shapeClass }) => `${operation}, ${shapeClass}`);
  const all = operations.flatMap(({ name, classes }) => classes.map((shapeClass) => `${name}, ${shapeClass}`));
  assert.deepEqual(met.sort(), all.sort());
  gpu.close();
});

/** One tile of matmul for everything, because a broken shader is compiled anew. */
const tile = { shader: "matmul", WORKGROUP: 8, ROWS: 2, VECS: 1 };
const tiles = Object.fromEntries(matmulOperation.classes.map((name) => [name, [tile]]));

test("variants that compute wrongly are refused, and the next ones pass", async () => {
  // As a driver that gets one tile wrong would seem, one number of queries, and one shader whatever its constants.
  const mend = breakShaders([
    ["matmul", "= finish(sums", "= select(0.0, 1.0, VECS == 3u) + finish(sums"],
    ["attention-lanes", "sums[i][c] / totals[i]", "select(1.0, 2.0, QUERIES == 2u) * sums[i][c] / totals[i]"],
    ["cached-attention-lanes", "select(vec2f(), sums[part] / whole", "select(vec2f(), sums[part]"],
  ]);
  const folder = mkdtempSync(join(tmpdir(), "self-test-"));
  const broken = { shader: "matmul", WORKGROUP: 8, ROWS: 1, VECS: 3, LANES: 1, STEPS: 1 };
  const [two, one] = [
    { shader: "attention-lanes", QUERIES: 2 },
    { shader: "attention-lanes", QUERIES: 1 },
  ];
  const block = { shader: "cached-attention-lanes", TILE: 64 };
  const spans = { shader: "cached-attention", LANES: 8, SPAN: 128 };
  const table = testTable({
    matmul: { ...tiles, "f32, 1 row": [broken, tile], "f16, more rows": [broken, tile] },
    attention: Object.fromEntries(attentionOperation.classes.map((name) => [name, [two, one]])),
    "cached-attention": { "any rows": [block, spans] },
  });
  const told: string[] = [];
  const gpu = await openWithTable(folder, table, (line) => told.push(line));
  try {
    await selfTest(gpu);
    assert.deepEqual(
      gpu.variants.refused.map(({ variant }) => variant),
      [broken, two, block],
    );
    assert.equal(told.length, 3, told.join("\n"));
    assert.match(
      told[0] ?? "",
      /^kernels: matmul \(.*VECS=3.*\) is refused .*: self-test of matmul of 1 rows with f32 weights: expected /,
    );
    assert.match(
      told[1] ?? "",
      /^kernels: attention \(.*QUERIES=2.*\) is refused .*: self-test of attention of 9 queries: /,
    );
    assert.match(
      told[2] ?? "",
      /^kernels: cached-attention \(.*TILE=64.*\) is refused .*: self-test of cached-attention in /,
    );
    const { choices } = gpu.variants.describe();
    assert.equal(choices.length, operations.flatMap(({ classes }) => classes).length);
    const of = (name: string) => choices.flatMap(({ operation, variant }) => (operation === name ? [variant] : []));
    for (const variant of of("matmul")) assert.notDeepEqual(variant, broken);
    assert.deepEqual(of("attention"), [one, one, one]);
    assert.deepEqual(of("cached-attention"), [spans]);
  } finally {
    gpu.close();
    mend();
    rmSync(folder, { recursive: true });
  }
});
