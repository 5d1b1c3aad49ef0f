// How the GPU thread ends: closed, device lost, crashed, no adapter, a failed self-test. Each in a process of its own.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { packageRoot } from "../../src/gpu/package-root.ts";

const cacheFolder = mkdtempSync(join(tmpdir(), "stages-end-"));
after(() => rmSync(cacheFolder, { recursive: true }));

/** Run lines in a process where `openStages`, `options`, `prompt`, `count` and `report(promise)` are at hand. */
async function run(lines: string, env: Record<string, string> = {}) {
  const code = `
    import { openStagesGroup, openStages } from ${JSON.stringify(new URL("../../src/workers/stages.js", import.meta.url).href)};
    import { defaultGeneration } from ${JSON.stringify(new URL("../../src/stages.js", import.meta.url).href)};
    const models = ${JSON.stringify(new URL("./fake-models.js", import.meta.url).href)};
    const options = { cacheFolder: ${JSON.stringify(cacheFolder)}, models, ioThreads: 1 };
    const request = { ref: "fake", dtype: "f32" };
    const prompt = { kind: "prompt", type: "f32", shape: [1, 12], bytes: new Uint8Array(48) };
    const count = (steps) => ({ ...defaultGeneration, maxNewTokens: steps });
    const report = (promise) => promise.then((value) => console.log("value", value), (error) => console.log(error.name + ": " + error.message));
    ${lines}`;
  const script = join(cacheFolder, "script.mjs");
  writeFileSync(script, code);
  const child = spawn(process.execPath, [script], {
    env: { ...process.env, BLIPFLEET_SHADERS: join(packageRoot, "test/gpu/shaders"), ...env },
    timeout: 60_000,
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (bytes) => {
    stdout += bytes;
  });
  child.stderr.on("data", (bytes) => {
    stderr += bytes;
  });
  const [status, signal] = await new Promise<[number | null, string | null]>((resolve) => {
    child.on("close", (code, name) => resolve([code, name]));
  });
  return { status, signal, lines: stdout.trim().split("\n"), stderr };
}

test("closed with nothing to do, the process ends by itself", async () => {
  const { status, signal, lines } = await run(`
    const stages = await openStages({ ...options, ...request });
    console.log((await stages.generate(prompt, [5], count(2))).join());
    await stages.close();
    console.log("closed");`);
  assert.deepEqual({ status, signal, lines }, { status: 0, signal: null, lines: ["6,7", "closed"] });
});

test("closing is not fatal; a call afterwards says that it was closed; another group may follow", async () => {
  const { status, lines } = await run(`
    for (let i = 0; i < 2; i++) {
      const group = await openStagesGroup(options);
      const stages = await group.open(request);
      void group.fatal.then(() => console.log("fatal"));
      await group.close();
      await report(stages.generate(prompt, [5], count(2)));
    }`);
  const line = "GpuThreadError: gpu thread: expected to run, but it was closed";
  assert.deepEqual({ status, lines }, { status: 0, lines: [line, line] });
});

test("process.exit() keeps its status whatever the GPU is doing", async () => {
  const opening = await run("void openStagesGroup(options); setTimeout(() => process.exit(3), 30);");
  const working = await run(`
    const stages = await openStages({ ...options, ...request });
    void stages.generate(prompt, [5], count(4000));
    setTimeout(() => process.exit(3), 50);`);
  for (const { status, signal } of [opening, working])
    assert.deepEqual({ status, signal }, { status: 3, signal: null });
});

test("closing drains, or gives up rows at the next submit boundary", async () => {
  for (const how of ["drain", "reject"]) {
    const { status, lines } = await run(`
      const group = await openStagesGroup(options);
      const stages = await group.open(request);
      const work = report(stages.generate(prompt, [5], count(${how === "drain" ? 20 : 4000})).then((ids) => ids.length));
      await new Promise((resolve) => setTimeout(resolve, 50));
      await group.close(${JSON.stringify(how)});
      await work;`);
    assert.equal(status, 0);
    assert.match(lines[0] ?? "", how === "drain" ? /^value 20$/ : /^SchedulerClosedError: /);
  }
});

test("a lost device rejects every call with one clear error, is reported as fatal, and the process can end", async () => {
  const { status, signal, lines } = await run(`
    const group = await openStagesGroup(options);
    const stages = await group.open(request);
    const work = [report(stages.generate(prompt, [1], count(4000))), report(stages.generate(prompt, [9001], count(2)))];
    const fatal = await group.fatal;
    await Promise.all(work);
    await report(stages.generate(prompt, [1], count(1)));
    await report(Promise.reject(fatal));
    await group.close();
    process.exitCode = 70;`);
  assert.deepEqual({ status, signal }, { status: 70, signal: null });
  assert.equal(lines.length, 4, lines.join("\n"));
  for (const line of lines) {
    assert.match(
      line,
      /^DeviceLostError: device: expected .+ subgroup \d+ to stay, got lost .* with \d+ bytes allocated/,
    );
  }
});

test("a device that is lost while nothing is asked of it is reported too", async () => {
  const { status, lines } = await run(`
    const group = await openStagesGroup(options);
    const stages = await group.open(request);
    await stages.generate(prompt, [9004], count(1));
    console.log((await group.fatal).name);
    await group.close();`);
  assert.deepEqual({ status, lines }, { status: 0, lines: ["DeviceLostError"] });
});

test("a crashed GPU thread is one clear error, not a hang", async () => {
  const { status, lines } = await run(`
    const group = await openStagesGroup(options);
    const stages = await group.open(request);
    await report(stages.generate(prompt, [9003], count(4000)));
    console.log((await group.fatal).name);
    await group.close();`);
  assert.equal(status, 0);
  assert.match(lines[0] ?? "", /^GpuThreadError: gpu thread: expected to run, got TypeError/);
  assert.equal(lines[1], "GpuThreadError");
});

test("no adapter and a failed self-test refuse to open; a failed self-test is not remembered", async () => {
  const open = "await report(openStagesGroup(options));";
  const none = { VK_DRIVER_FILES: "/nonexistent.json", VK_ICD_FILENAMES: "/nonexistent.json" };
  const before = readdirSync(join(cacheFolder, "self-test")).length;
  assert.match((await run(open, none)).lines[0] ?? "", /^AdapterError: adapter: expected .* run `npm run setup`/);
  const failing = { FAKE_SELF_TEST: "fail", BLIPFLEET_SHADERS: join(packageRoot, "shaders") };
  for (let i = 0; i < 2; i++) {
    const { lines } = await run(open, failing);
    assert.equal(lines[0], "FakeModelError: self-test: expected 4, got 5");
  }
  assert.equal(readdirSync(join(cacheFolder, "self-test")).length, before);
});
