// Stages through real threads and a real adapter, with a made-up model: shared batches, a free main thread, aborts.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { toPixels } from "../../src/image/pixels.ts";
import { type Activation, defaultGeneration, type Pixels } from "../../src/stages.ts";
import { openTokenizer } from "../../src/text/tokenizer.ts";
import type { WeightsProgress } from "../../src/weights/repository.ts";
import { openStages, openStagesGroup, StageError } from "../../src/workers/stages.ts";

process.env.BLIPFLEET_SHADERS = join(packageRoot, "test/gpu/shaders");
const cacheFolder = mkdtempSync(join(tmpdir(), "stages-"));
const models = new URL("./fake-models.js", import.meta.url).href;
const group = await openStagesGroup({ cacheFolder, models, ioThreads: 1 });
process.stderr.write(`adapter: ${adapterLine(group.report)}\n`);
const stages = await group.open({ ref: "fake", dtype: "f32" });
after(async () => {
  await group.close();
  rmSync(cacheFolder, { recursive: true });
});

const pixels = (first: number): Pixels => ({
  data: Float32Array.from({ length: 12 }, (_, i) => first + i),
  height: 2,
  width: 2,
});
const values = ({ bytes }: Activation) => [...new Float32Array(Uint8Array.from(bytes).buffer)];
const prompt: Activation = { kind: "prompt", type: "f32", shape: [1, 12], bytes: new Uint8Array(48) };
const count = (steps: number) => ({ ...defaultGeneration, maxNewTokens: steps });

test("concurrent calls share a batch and equal single calls; inputs stay the caller's", async () => {
  const inputs = Array.from({ length: 40 }, (_, i) => pixels(20 * i));
  const before = (await group.stats()).programs["fake f32 encode"]?.batches ?? 0;
  const together = await Promise.all(inputs.map((input) => stages.encode(input)));
  const middle = (await group.stats()).programs["fake f32 encode"]?.batches ?? 0;
  // Ten would do for batches of four; the first ones may start before all calls have come.
  assert.ok(middle - before <= 20, `${middle - before} batches for 40 calls`);
  for (const [i, input] of inputs.slice(0, 3).entries()) {
    const alone = await stages.encode(input);
    assert.deepEqual(
      values(alone),
      Array.from(input.data, (value) => value * 2),
    );
    assert.deepEqual(together[i], alone);
  }
  const { programs, load, allocatedBytes } = await group.stats();
  assert.equal(programs["fake f32 encode"]?.rows, 43);
  assert.equal(load, 0);
  assert.ok(allocatedBytes > 0);
});

test("pixels and text come from io threads and equal what this thread makes", async () => {
  const image = readFileSync(join(packageRoot, "test/fixtures/images/shapes.png"));
  const made = await stages.toPixels(image);
  assert.deepEqual(made, await toPixels(image, stages.card.image));
  assert.ok(image.length > 0, "the caller keeps its bytes");
  const tokenizer = await openTokenizer(join(packageRoot, "test/fixtures/models/blip2-opt-tiny"));
  const ids = await stages.tokenize("a red shape");
  assert.deepEqual(ids, tokenizer.tokenize("a red shape"));
  assert.deepEqual(await stages.tokenize(null), tokenizer.tokenize(null));
  assert.equal(await stages.detokenize(ids), tokenizer.detokenize(ids));
  await assert.rejects(stages.tokenizeAnswer("red"), {
    name: "TokenizerError",
    message: /expected a tokenizer of answers by themselves, got another/,
  });
  await assert.rejects(stages.toPixels(new Uint8Array(0)), { name: "ImageError" });
  await assert.rejects(stages.tokenize("\ud800"), { name: "TokenizerError" });
});

test("loading tells its progress", async () => {
  const seen: WeightsProgress[] = [];
  await group.open({ ref: "watched", dtype: "f32" }, (progress) => seen.push(progress));
  assert.deepEqual(seen, [{ phase: "upload", what: "watched", done: 1, total: 2 }]);
});

test("two loaded models keep apart", async () => {
  const other = await group.open({ ref: "other", dtype: "f16" });
  assert.deepEqual(
    [other.card.ref, other.card.dtype, stages.card.ref, other.memory.encode],
    ["other", "f16", "fake", 4],
  );
  const [a, b] = await Promise.all([stages.encode(pixels(1)), other.encode(pixels(1))]);
  assert.deepEqual(a, b);
  assert.equal((await group.stats()).programs["other f16 encode"]?.rows, 1);
});

test("the main thread ticks on while the GPU works", async () => {
  const ticks = [performance.now()];
  const timer = setInterval(() => ticks.push(performance.now()), 2);
  const start = performance.now();
  const ids = await stages.generate(prompt, [10], count(60));
  const took = performance.now() - start;
  clearInterval(timer);
  assert.deepEqual(
    ids,
    Array.from({ length: 60 }, (_, i) => 11 + i),
  );
  const longest = Math.max(...ticks.slice(1).map((tick, i) => tick - (ticks[i] ?? 0)));
  assert.ok(took > 60, `60 submits of 200 dispatches took only ${took} ms`);
  assert.ok(longest < took / 3, `silent for ${longest} ms of ${took}`);
});

test("an aborted call rejects with the signal's reason long before its end, others go on", async () => {
  const abort = new AbortController();
  const kept = stages.generate(prompt, [100], count(20));
  const gone = stages.generate(prompt, [200], count(4000), { signal: abort.signal });
  setTimeout(() => abort.abort(new Error("caller left")), 20);
  await assert.rejects(gone, /^Error: caller left$/);
  assert.equal((await kept).length, 20);
  await assert.rejects(stages.encode(pixels(1), { signal: AbortSignal.abort(new Error("at once")) }), /at once/);
  for (let i = 0; (await group.stats()).load > 0; i++) assert.ok(i < 1000, "the row is given up in the thread too");
});

test("an interactive call overtakes a long batch-priority one", async () => {
  const order: string[] = [];
  const long = stages.generate(prompt, [1], count(300)).then(() => order.push("batch"));
  await new Promise((resolve) => setTimeout(resolve, 10));
  const quick = stages
    .generate(prompt, [1], count(5), { priority: "interactive" })
    .then(() => order.push("interactive"));
  await Promise.all([long, quick]);
  assert.deepEqual(order, ["interactive", "batch"]);
});

test("errors keep their class names; a stage that is not served is named", async () => {
  await assert.rejects(group.open({ ref: "missing", dtype: "f32" }), { name: "FakeModelError", message: /missing/ });
  await assert.rejects(stages.generate(prompt, [9002], count(2)), { name: "FakeModelError" });
  const generateOnly = await group.open({ ref: "part", dtype: "f32", stages: ["generate"] });
  await assert.rejects(
    generateOnly.encode(pixels(1)),
    (error) => error instanceof StageError && /expected encode of part .*, got generate$/.test(error.message),
  );
});

test("a second GPU thread in one process is refused", async () => {
  await assert.rejects(openStages({ cacheFolder, models, ref: "fake", dtype: "f32" }), {
    name: "GpuThreadError",
    message: /expected one per process/,
  });
});

test("a passed self-test is remembered for this adapter and these shaders", async () => {
  assert.equal(group.selfTest, "passed");
  assert.equal(readdirSync(join(cacheFolder, "self-test")).length, 1);
});
