// When a self-test may be left out: only after a pass with the same adapter, driver and shaders.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { AdapterReport } from "../../src/gpu/adapter.ts";
import { selfTestOnce, shaderDigest } from "../../src/gpu/self-test-memory.ts";

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

/** [what came of it, how often the test ran] */
async function ask(folder: string, adapter: AdapterReport = report): Promise<[string, number]> {
  let ran = 0;
  const outcome = await selfTestOnce(join(root, folder), adapter, async () => {
    ran++;
  });
  return [outcome, ran];
}

test("a pass is remembered; another adapter, driver, limit or shader asks again", async () => {
  assert.deepEqual(await ask("cache"), ["passed", 1]);
  assert.deepEqual(await ask("cache"), ["remembered", 0]);
  assert.deepEqual(await ask("cache", { ...report, device: "e" }), ["passed", 1]);
  assert.deepEqual(await ask("cache", { ...report, description: "driver 2" }), ["passed", 1]);
  assert.deepEqual(await ask("cache", { ...report, limits: { maxBufferSize: 2 } }), ["passed", 1]);
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
  await assert.rejects(selfTestOnce(join(root, "failing"), report, failing), /wrong answer/);
  assert.deepEqual(await ask("failing"), ["passed", 1]);
});

test("a cache folder that cannot be written costs a test and nothing else", async () => {
  writeFileSync(join(root, "a file"), "");
  assert.deepEqual(await ask("a file"), ["passed", 1]);
  assert.deepEqual(await ask("a file"), ["passed", 1]);
  assert.ok(readdirSync(root).includes("a file"));
});
