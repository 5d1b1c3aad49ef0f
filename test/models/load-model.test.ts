// What must not change a model's bytes: the batch, the split of its matrices, the topology, the other stages.

import assert from "node:assert/strict";
import { cp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, test } from "node:test";
import { heavy, writeRandomCheckpoint } from "../../bench/random-checkpoint.ts";
import { quickForm, trueShapes } from "../../bench/true-shapes.ts";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { KernelError, ShapeError } from "../../src/gpu/errors.ts";
import type { RowProgram } from "../../src/gpu/row-program.ts";
import { UnsupportedModelError } from "../../src/models/errors.ts";
import { type LoadedModel, loadModel } from "../../src/models/load-model.ts";
import { submits } from "../../src/models/staged-program.ts";
import { type Activation, type Dtype, defaultGeneration, type Pixels } from "../../src/stages.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { checkpointDigest } from "../../src/weights/digest.ts";
import { CheckpointError, WeightsError } from "../../src/weights/errors.ts";
import type { WeightsProgress } from "../../src/weights/repository.ts";
import { temporaryFolder } from "../weights/checkpoint-files.ts";
import { modelFolder, pixelsOf } from "./parity.ts";

const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());
const folder = await temporaryFolder();
const images = ["shapes.png", "gradient.png", "noise.png", "turned.jpg", "wide-stripes.png"];

/** One batch of a program, step by step. */
async function runBatch<In, Out>(program: RowProgram<In, Out> | undefined, rows: readonly In[]): Promise<Out[]> {
  assert.ok(program);
  const batch = program.start(rows);
  const values: Out[] = [];
  for (let left = rows.length; left > 0; ) {
    for (const result of await batch.step(new Set())) {
      if ("error" in result) throw result.error;
      values[result.row] = result.value;
      left--;
    }
  }
  batch.release();
  return values;
}

async function pixelsFor(model: LoadedModel): Promise<Pixels[]> {
  return Promise.all(images.map((image) => pixelsOf(image, model.card.image)));
}

function hex({ bytes }: Activation): string {
  return Buffer.from(bytes).toString("hex");
}

/** Everything that a model makes of the images, one row at a time. */
async function everything(model: LoadedModel): Promise<{ prompts: string[]; ids: number[][] }> {
  const rows = await pixelsFor(model);
  const prompts: Activation[] = [];
  for (const row of rows) prompts.push(...(await runBatch(model.programs.encodeAndQuery, [row])));
  const ids: number[][] = [];
  for (const prompt of prompts) {
    ids.push(
      ...(await runBatch(model.programs.generate, [{ prompt, textIds: [2, 68], generation: defaultGeneration }])),
    );
  }
  return { prompts: prompts.map(hex), ids };
}

for (const dtype of ["f32", "f16"] as const satisfies readonly Dtype[]) {
  test(`${dtype}: a batch gives the bytes of single rows; encode then query those of both at once`, async () => {
    const model = await loadModel(gpu, modelFolder("blip2-opt-tiny"), { dtype });
    const { card, programs } = model;
    const rows = await pixelsFor(model);
    const { prompts: alone } = await everything(model);
    assert.equal(new Set(alone).size, images.length, "every image gives its own prompt");
    for (const count of [2, 3, 5]) {
      const features = await runBatch(programs.encode, rows.slice(0, count));
      for (const each of features) {
        assert.deepEqual(
          { kind: each.kind, type: each.type, shape: each.shape },
          { kind: "features", type: dtype, shape: card.features },
        );
      }
      const queried = await runBatch(programs.query, features);
      const fused = await runBatch(programs.encodeAndQuery, rows.slice(0, count));
      assert.deepEqual(queried.map(hex), alone.slice(0, count), `encode and query of ${count}`);
      assert.deepEqual(fused.map(hex), alone.slice(0, count), `both of ${count}`);
    }
    model.release();
  });

  test(`${dtype}: matrices split far below the device's limit give the same bytes and ids`, async () => {
    const whole = await loadModel(gpu, modelFolder("blip2-opt-tiny"), { dtype });
    const expected = await everything(whole);
    whole.release();
    // Pixels and the fused product of one row take 21 kB each and must fit; matrices are up to 372 kB.
    for (const bindingLimit of [22_000, 50_000]) {
      const limited = await openGpu({ nap: true, bindingLimit });
      const model = await loadModel(limited, modelFolder("blip2-opt-tiny"), { dtype });
      assert.deepEqual(await everything(model), expected, `a limit of ${bindingLimit} bytes`);
      model.release();
      limited.close();
    }
  });
}

test("a limit below four columns of a matrix is refused with the numbers", async () => {
  const limited = await openGpu({ nap: true, bindingLimit: 8192 });
  await assert.rejects(loadModel(limited, modelFolder("blip2-opt-tiny"), { dtype: "f32" }), (error: Error) => {
    assert.ok(error instanceof KernelError, String(error));
    return /expected four columns of 588 in 8192 bytes, got 9408; raise the binding limit/.test(error.message);
  });
  limited.close();
});

test("only the parts of the wanted stages are loaded; the card is the same; release gives all memory back", async () => {
  const name = modelFolder("blip2-opt-tiny");
  const before = gpu.allocatedBytes;
  const whole = await loadModel(gpu, name, { dtype: "f32" });
  assert.deepEqual(Object.keys(whole.programs).sort(), [
    "attention",
    "encode",
    "encodeAndQuery",
    "generate",
    "query",
    "rank",
  ]);
  const sum = Object.values(whole.memory).reduce((total, bytes) => total + bytes, 0);
  const allocated = gpu.allocatedBytes - before;
  // Beside the weights, what the first row will replay.
  const most = sum * 1.02 + 3 * (whole.rowBytes.caches + whole.rowBytes.scratch);
  assert.ok(allocated >= sum && allocated < most, `planned ${sum}, allocated ${allocated}`);
  await everything(whole);
  for (const [stage, programs] of [
    ["encode", ["encode"]],
    ["query", ["query", "attention"]],
    ["generate", ["generate", "rank"]],
  ] as const) {
    const at = gpu.allocatedBytes;
    const part = await loadModel(gpu, name, { dtype: "f32", stages: [stage] });
    assert.deepEqual(Object.keys(part.programs), programs);
    assert.deepEqual(part.card, whole.card);
    assert.deepEqual(part.memory, { [stage]: whole.memory[stage] });
    const atMost = (whole.memory[stage] ?? 0) * 1.05 + 3 * (part.rowBytes.caches + part.rowBytes.scratch);
    assert.ok(gpu.allocatedBytes - at < atMost, `${stage} alone`);
    part.release();
    assert.equal(gpu.allocatedBytes, at, `${stage} is gone`);
  }
  whole.release();
  // Shared scratch and staging of the device stay; weights, inputs and results must not.
  assert.ok(gpu.allocatedBytes - before < sum / 4, `${gpu.allocatedBytes - before} bytes are left`);
});

test("progress ends at the plan's total; files are hashed beside that, and told of afterwards if at all", async () => {
  const told: WeightsProgress[] = [];
  const checkpoint = await openCheckpoint(modelFolder("blip2-opt-sharded"));
  const model = await loadModel(gpu, checkpoint, {
    dtype: "f16",
    onProgress: (progress) => told.push(progress),
  });
  const total = Object.values(model.memory).reduce((sum, bytes) => sum + bytes, 0);
  const uploads = told.filter(({ phase }) => phase === "upload");
  assert.deepEqual(uploads.at(-1), { phase: "upload", what: model.card.ref, done: total, total });
  assert.match(told.map(({ phase }) => phase[0]).join(""), /^u+h*$/);
  assert.equal(model.card.digest, await checkpointDigest(checkpoint));
  model.release();
});

test("rows that are not the model's are refused by name", async () => {
  const model = await loadModel(gpu, modelFolder("blip2-opt-tiny"), { dtype: "f32" });
  const { encode, query } = model.programs;
  assert.ok(encode && query);
  const wrong: Pixels = { data: new Float32Array(3), height: 1, width: 1 };
  assert.throws(() => encode.start([wrong]), ShapeError);
  const shape = model.card.features;
  const features: Activation = { kind: "features", type: "f32", shape, bytes: new Uint8Array(shape[0] * shape[1] * 4) };
  for (const change of [
    { type: "f16" },
    { kind: "prompt" },
    { shape: [shape[0], shape[1] + 1] },
    { bytes: new Uint8Array(4) },
  ]) {
    assert.throws(() => query.start([{ ...features, ...change } as Activation]), ShapeError);
  }
  model.release();
});

test("a batch whose rows were all dropped does nothing more; a dropped row is not returned", async () => {
  const model = await loadModel(gpu, modelFolder("blip2-opt-tiny"), { dtype: "f32" });
  const rows = await pixelsFor(model);
  const { encode } = model.programs;
  assert.ok(encode);
  const gone = encode.start(rows.slice(0, 2));
  assert.deepEqual(await gone.step(new Set([0, 1])), []);
  gone.release();
  const batch = encode.start(rows.slice(0, 3));
  const done = await batch.step(new Set([1]));
  assert.deepEqual(
    done.map(({ row }) => row),
    [0, 2],
  );
  batch.release();
  model.release();
});

test("parts share a submit as long as their cost allows", () => {
  const parts = [1, 2, 3, 9, 1, 1].map((cost) => ({ cost, run: () => [] }));
  const costs = (batch: number, most: number) =>
    submits(parts, batch, most).map((group) => group.map(({ cost }) => cost));
  assert.deepEqual(costs(1, 100), [[1, 2, 3, 9, 1, 1]]);
  assert.deepEqual(costs(1, 6), [[1, 2, 3], [9], [1, 1]]);
  assert.deepEqual(costs(2, 6), [[1, 2], [3], [9], [1, 1]]);
  assert.deepEqual(costs(1, 0), [[1], [2], [3], [9], [1], [1]]);
});

test("a forward pass in many submits gives the same bytes", async () => {
  const checkpoint = await writeRandomCheckpoint(path.join(folder, "heavy"), heavy);
  const model = await loadModel(gpu, checkpoint, { dtype: "f32", stages: ["encode", "query"] });
  const rows = (await pixelsFor(model)).slice(0, 4);
  const { encodeAndQuery } = model.programs;
  assert.ok(encodeAndQuery);
  const batch = encodeAndQuery.start(rows);
  let steps = 0;
  let together: string[] = [];
  while (together.length === 0) {
    steps++;
    const results = await batch.step(new Set());
    together = results.map((result) => ("value" in result ? hex(result.value) : "error"));
  }
  batch.release();
  const alone: string[] = [];
  for (const row of rows) alone.push(...(await runBatch(encodeAndQuery, [row])).map(hex));
  assert.deepEqual(together, alone);
  if (gpu.softwareAdapter) assert.ok(steps > 1, `${steps} submits`);
  model.release();
});

async function copyOf(name: string, change: (folder: string) => Promise<void>): Promise<string> {
  const copy = path.join(folder, `${name}-${Math.random().toString(36).slice(2)}`);
  await cp(modelFolder(name), copy, { recursive: true });
  await change(copy);
  return copy;
}

async function changeJson(
  folder: string,
  file: string,
  change: (json: Record<string, unknown>) => void,
): Promise<void> {
  const json = JSON.parse(await readFile(path.join(folder, file), "utf8"));
  change(json);
  await writeFile(path.join(folder, file), JSON.stringify(json));
}

test("bad checkpoints are refused before anything is uploaded", async () => {
  const cases: [string, (copy: string) => Promise<void>, new (...given: never[]) => Error, RegExp][] = [
    [
      "a missing shard",
      (copy) => rm(path.join(copy, "model-00002-of-00005.safetensors")),
      WeightsError,
      /model-00002-of-00005/,
    ],
    [
      "sizes unlike the configuration",
      (copy) => changeJson(copy, "config.json", (json) => Object.assign(json, { num_query_tokens: 31 })),
      WeightsError,
      /query_tokens: expected \(1, 31, 60\), got \(1, 32, 60\)/,
    ],
    [
      "another model type",
      (copy) => changeJson(copy, "config.json", (json) => Object.assign(json, { model_type: "llava" })),
      UnsupportedModelError,
      /got "llava"; supported: blip-2 \(Blip2ForConditionalGeneration\)/,
    ],
    ["no tokenizer", (copy) => rm(path.join(copy, "tokenizer.json")), CheckpointError, /expected tokenizer\.json/],
    ["no configuration", (copy) => rm(path.join(copy, "config.json")), CheckpointError, /config\.json/],
  ];
  const before = gpu.allocatedBytes;
  for (const [what, change, type, message] of cases) {
    const copy = await copyOf("blip2-opt-sharded", change);
    await assert.rejects(loadModel(gpu, copy, { dtype: "f32" }), (error: Error) => {
      assert.ok(error instanceof type, `${what}: ${error.name}: ${error.message}`);
      assert.match(error.message, message, what);
      return true;
    });
  }
  assert.equal(gpu.allocatedBytes, before);
});

test("a file that ends while it is read fails the load, and the device goes on", async () => {
  const written = await writeRandomCheckpoint(path.join(folder, "cut"), quickForm(trueShapes["blip2-opt-2.7b"]));
  const checkpoint = await openCheckpoint(written);
  const before = gpu.allocatedBytes;
  await truncate(path.join(written, "model-00002-of-00003.safetensors"), 500_000);
  await assert.rejects(loadModel(gpu, checkpoint, { dtype: "f16" }), /expected \d+ bytes of .*, got an end/);
  assert.ok(gpu.allocatedBytes - before < 1e6, `${gpu.allocatedBytes - before} bytes are left`);
  const model = await loadModel(gpu, modelFolder("blip2-opt-tiny"), { dtype: "f32" });
  const { encode } = model.programs;
  await runBatch(encode, (await pixelsFor(model)).slice(0, 1));
  model.release();
});
