// The bench for GPUs, tried on whatever adapter there is: tiny shapes, one turn each.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../../src/gpu/package-root.ts";

const bench = join(packageRoot, "dist", "bench", "gpu.js");
const run = (...args: string[]) =>
  // No Python on this path: that is told, and nothing fails.
  spawnSync(process.execPath, [bench, ...args], { encoding: "utf8", env: { ...process.env, PATH: "/nowhere" } });

test("every part gives figures, on the screen and in the file", () => {
  const folder = mkdtempSync(join(tmpdir(), "bench-gpu-"));
  try {
    const json = join(folder, "report.json");
    const { status, stdout, stderr } = run("--quick", "--json", json);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^subgroup matrices /m);
    assert.match(stdout, /^not measured: expected python3, found none$/m);
    const { finished, rows, huggingFace, left, adapter, limits } = JSON.parse(readFileSync(json, "utf8"));
    assert.equal(finished, true);
    assert.deepEqual([huggingFace, left], [[], ["Hugging Face: expected python3, found none"]]);
    assert.ok(adapter.vendor !== "" && limits.bytesPerSecond > 0 && limits.flopsPerSecond > 0);
    const named = (part: RegExp) => rows.filter(({ name }: { name: string }) => part.test(name));
    assert.deepEqual(
      [/^dependent/, /^vit-g images, batch/, /^attention/, /^layer norm/].map((part) => named(part).length),
      [1, 2, 2, 2],
    );
    for (const [type, products] of [
      ["f16", 10],
      ["int8", 8],
      ["int4", 8],
    ] as const) {
      assert.equal(named(new RegExp(`^opt-2\\.7b decode, batch \\d, ${type}$`)).length, 2, type);
      assert.equal(named(new RegExp(`^opt-2\\.7b ${type} \\d+x\\d+x\\d+$`)).length, products, type);
    }
    for (const { name, value, teraflops, ofBandwidth } of rows) {
      assert.ok(value > 0, name);
      assert.ok(stdout.includes(name), name);
      if (/ (f16|int8|int4) \d+x/.test(name)) assert.ok(teraflops > 0 && ofBandwidth > 0, name);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a part that is not there, and seconds that are none, are wrong use", () => {
  for (const args of [["--only", "kernel"], ["--seconds", "0"], ["--fast"]]) {
    const { status, stderr } = run(...args);
    assert.equal(status, 2, stderr);
    assert.match(stderr, /^usage: npm run bench:gpu/m);
  }
});
