// How a device ends: lost, out of memory, closed, or never found. Each case is a process of its own.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

const device = new URL("../../src/gpu/device.js", import.meta.url).href;

/** Run a few lines with `openGpu` at hand; they print what they saw. */
function run(lines: string, env: Record<string, string> = {}) {
  const code = `import { openGpu } from ${JSON.stringify(device)};\n${lines}`;
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
    env: { ...process.env, ...env },
    encoding: "utf8",
    timeout: 60_000,
  });
  return { status, signal, stdout, stderr };
}

test("a process that closes its device ends by itself, also after garbage collection", () => {
  const { status, signal, stdout } = run(`
    import { setFlagsFromString } from "node:v8";
    import { runInNewContext } from "node:vm";
    const gpu = await openGpu({ nap: true });
    setFlagsFromString("--expose-gc");
    runInNewContext("gc")();
    const x = gpu.alloc("x", [4], "u32");
    console.log(new Uint32Array(await gpu.read(x)).join());
    gpu.close();`);
  assert.deepEqual({ status, signal, stdout }, { status: 0, signal: null, stdout: "0,0,0,0\n" });
});

test("a lost device rejects what is pending, and all that comes later, with one clear error", () => {
  const { stdout } = run(`
    const gpu = await openGpu();
    const x = gpu.alloc("x", [1024], "u32");
    const pending = gpu.read(x);
    gpu.device.destroy();
    const seen = [pending, gpu.lost, gpu.read(x)].map((each) => each.catch((error) => error));
    for (const error of await Promise.all(seen)) console.log(error.name, error.message);`);
  const lines = stdout.trim().split("\n");
  assert.equal(lines.length, 3, stdout);
  for (const line of lines) {
    assert.match(
      line,
      /^DeviceLostError device: expected .+ to stay, got lost \(destroyed: .*\) with \d+ bytes allocated/,
    );
  }
});

test("a closed device rejects what is pending without a loss", () => {
  const { stdout } = run(`
    const gpu = await openGpu();
    const x = gpu.alloc("x", [1024], "u32");
    const pending = gpu.read(x);
    gpu.lost.catch(() => console.log("lost"));
    gpu.close();
    await pending.catch((error) => console.log(error.message));`);
  assert.equal(stdout, "device: expected to be open, got closed\n");
});

test("too large a buffer is OutOfMemoryError with both numbers and the adapter", () => {
  const { stdout } = run(`
    const gpu = await openGpu();
    try { gpu.alloc("weights", [2 ** 40], "f32"); } catch (error) { console.log(error.name, error.message); }
    gpu.close();`);
  assert.match(stdout, /^OutOfMemoryError weights: expected a buffer of at most \d+ bytes on .+, got 4398046511104\n$/);
});

test("no driver is AdapterError with what to do", () => {
  const { stdout } = run(`await openGpu().catch((error) => console.log(error.name, error.message));`, {
    VK_DRIVER_FILES: "/nonexistent/icd.json",
    VK_ICD_FILENAMES: "/nonexistent/icd.json",
  });
  assert.match(stdout, /^AdapterError adapter: expected .+, found .+; run `npm run setup` .+ `blipfleet doctor`/);
});
