// Which adapters are refused.

import assert from "node:assert/strict";
import { test } from "node:test";
import { create, globals } from "webgpu";
import { expectComputing, findAdapter } from "../../src/gpu/adapter.ts";

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
