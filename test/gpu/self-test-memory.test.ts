// When a self-test may be left out: only after a pass with the same adapter, driver and shaders.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { AdapterReport } from "../../src/gpu/adapter.ts";
import { selfTestOnce, shaderDigest } from "../../src/gpu/self-test-memory.ts";
import type { TableFile } from "../../src/gpu/tuning-table.ts";
import { Variants } from "../../src/gpu/variants.ts";

const root = mkdtempSync(join(tmpdir(), "self-test-"));
after(() => rmSync(root, { recursive: true }));
const shaders = join(root, "shaders");
mkdirSync(shaders);
writeFileSync(join(shaders, "a.wgsl"), "a");
process.env.BLIPFLEET_SHADERS = shaders;

const report: AdapterReport = {
  vendor: "v",
  architecture: "a",
  device: "d",
  description: "driver 1",
  softwareAdapter: true,
  subgroupMinSize: 8,
  subgroupMaxSize: 8,
  features: [],
  matrices: [],
  limits: { maxBufferSize: 1 },
  toggles: [],
};

/** A table of one operation with variants that differ in their one constant. */
function tableOf(...sizes: readonly number[]): TableFile {
  const variants = sizes.map((size) => ({ variant: { size }, milliseconds: null }));
  const operations = { double: { "one row": { measured: "nothing", variants } } };
  return { file: "a table", table: { format: 1, adapter: null, measured: null, operations } };
}

const variantsOf = (table: TableFile, told: string[] = []) => new Variants([table], report, (line) => told.push(line));

interface Asked {
  readonly adapter?: AdapterReport;
  readonly variants?: Variants;
  readonly testAnyway?: boolean;
  readonly test?: () => Promise<void>;
}

/** [what came of it, how often the test ran] */
async function ask(folder: string, asked: Asked = {}): Promise<[string, number]> {
  const { adapter = report, variants = variantsOf(tableOf(1)), testAnyway = false, test: more } = asked;
  let ran = 0;
  const outcome = await selfTestOnce({ cacheFolder: join(root, folder), testAnyway }, adapter, variants, async () => {
    ran++;
    await more?.();
  });
  return [outcome, ran];
}

test("a pass is remembered; another adapter, driver, limit or shader asks again", async () => {
  assert.deepEqual(await ask("cache"), ["passed", 1]);
  assert.deepEqual(await ask("cache"), ["remembered", 0]);
  assert.deepEqual(await ask("cache", { adapter: { ...report, device: "e" } }), ["passed", 1]);
  assert.deepEqual(await ask("cache", { adapter: { ...report, description: "driver 2" } }), ["passed", 1]);
  assert.deepEqual(await ask("cache", { adapter: { ...report, limits: { maxBufferSize: 2 } } }), ["passed", 1]);
  assert.deepEqual(await ask("other cache"), ["passed", 1]);
  const before = shaderDigest();
  writeFileSync(join(shaders, "a.wgsl"), "b");
  assert.notEqual(shaderDigest(), before);
  assert.deepEqual(await ask("cache"), ["passed", 1]);
  writeFileSync(join(shaders, "a.wgsl"), "a");
  assert.deepEqual(await ask("cache"), ["remembered", 0]);
  writeFileSync(join(shaders, "b.wgsl"), "");
  assert.deepEqual(await ask("cache"), ["passed", 1]);
});

test("a failure is thrown and not remembered", async () => {
  const failing = () => Promise.reject(new Error("wrong answer"));
  await assert.rejects(ask("failing", { test: failing }), /wrong answer/);
  assert.deepEqual(await ask("failing"), ["passed", 1]);
});

test("a pass holds for the variants of the tables; doctor asks again", async () => {
  assert.deepEqual(await ask("variants"), ["passed", 1]);
  assert.deepEqual(await ask("variants", { variants: variantsOf(tableOf(1, 2)) }), ["passed", 1]);
  assert.deepEqual(await ask("variants", { variants: variantsOf(tableOf(2, 1)) }), ["passed", 1]);
  assert.deepEqual(await ask("variants"), ["remembered", 0]);
  assert.deepEqual(await ask("variants", { testAnyway: true }), ["passed", 1]);
});

test("refused variants are remembered, told again and passed over", async () => {
  const table = tableOf(1, 2);
  const first = variantsOf(table);
  const refuse = async () => first.restore([{ operation: "double", variant: { size: 1 }, reason: "wrong" }]);
  assert.deepEqual(await ask("refused", { variants: first, test: refuse }), ["passed", 1]);
  const told: string[] = [];
  const second = variantsOf(table, told);
  assert.deepEqual(await ask("refused", { variants: second }), ["remembered", 0]);
  assert.deepEqual(second.refused, first.refused);
  assert.equal(told.length, 1);
  assert.match(told[0] ?? "", /double \(size=1\) is refused on this adapter.*: wrong$/);
});

test("a variant refused later is tested past, and that is remembered", async () => {
  const table = tableOf(1, 2);
  const variants = variantsOf(table);
  let ran = 0;
  const count = async () => void ran++;
  await ask("later", { variants, test: count });
  variants.restore([{ operation: "double", variant: { size: 1 }, reason: "does not compile" }]);
  await variants.testNext();
  assert.equal(ran, 2);
  const next = variantsOf(table);
  assert.deepEqual(await ask("later", { variants: next }), ["remembered", 0]);
  assert.deepEqual(next.refused, variants.refused);
});

test("a memory that cannot be read counts as none", async () => {
  await ask("cut off");
  const folder = join(root, "cut off", "self-test");
  for (const file of readdirSync(folder)) writeFileSync(join(folder, file), '{"passed"');
  assert.deepEqual(await ask("cut off"), ["passed", 1]);
});

test("a cache folder that cannot be written costs a test and nothing else", async () => {
  writeFileSync(join(root, "a file"), "");
  assert.deepEqual(await ask("a file"), ["passed", 1]);
  assert.deepEqual(await ask("a file"), ["passed", 1]);
  assert.ok(readdirSync(root).includes("a file"));
});
