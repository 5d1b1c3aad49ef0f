// Which adapters are refused.

import assert from "node:assert/strict";
import { test } from "node:test";
import { create, globals } from "webgpu";
import { expectComputing, expectSubgroups, findAdapter } from "../../src/gpu/adapter.ts";

Object.assign(globalThis, globals);

test("the null backend, which accepts work and runs none, is refused with the next step", async () => {
  const instance = create(["backend=null"]);
  const adapter = await instance.requestAdapter();
  assert.ok(adapter, "expected Dawn to offer its null backend");
  assert.throws(() => expectComputing(adapter.info), {
    name: "AdapterError",
    message: /^adapter: expected one that computes, found only "null-backend", .* run `npm run setup`/,
  });
  assert.equal(await instance.requestAdapter().then(() => "anchored"), "anchored");
});

test("the adapter in use computes", async () => {
  const { adapter, report } = await findAdapter(true);
  expectComputing(adapter.info);
  assert.notEqual(report.vendor, "");
});

test("an adapter without subgroups is refused by name", async () => {
  const { adapter, report } = await findAdapter(true);
  expectSubgroups(adapter.info, adapter.features);
  assert.throws(() => expectSubgroups(adapter.info, new Set(["shader-f16"])), {
    name: "AdapterError",
    message: `adapter: expected one with subgroups, got ${report.vendor} ${report.device} (${report.description}) without; a newer driver may have them, or \`npm run setup\` for a software driver`,
  });
  assert.ok(report.subgroupMinSize >= 1);
});
