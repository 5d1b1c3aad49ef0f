// VisualGLM against an f64 reference: every block of the language model, logits read at once and one by one, all ids, and
// the same weights under SAT's names and in pieces.

import assert from "node:assert/strict";
import path from "node:path";
import { after, test } from "node:test";
import { openGpu } from "../../src/gpu/device.ts";
import type { Recorder } from "../../src/gpu/recorder.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import type { ElementType, Tensor } from "../../src/gpu/tensor.ts";
import { none } from "../../src/kernels/decode-state.ts";
import { turnsOf } from "../../src/models/check-visualglm.ts";
import { type GlmWeights, glmLanguageModel } from "../../src/models/glm.ts";
import { visualGlmConfig } from "../../src/models/glm-config.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { WeightLoader } from "../../src/models/load.ts";
import { type LoadedModel, loadModel } from "../../src/models/load-model.ts";
import type { Activation, ActivationType } from "../../src/stages.ts";
import { openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { glmNames, visualGlmLayout } from "../../src/weights/names/visualglm.ts";
import { openTestGpu } from "../gpu/open-test-gpu.ts";
import { unpackF16 } from "../kernels/harness.ts";
import { temporaryFolder } from "../weights/checkpoint-files.ts";
import { type GlmCase, type GlmExpected, glmFolder, readGlmExpected, textIdsOf, writeAsSat } from "./glm-checkpoint.ts";
import { expectNear, generationOf, pixelsOf, readTensors } from "./parity.ts";

const gpu = await openTestGpu();
after(() => gpu.close());
const expected = await readGlmExpected();
const tensors = await readTensors(path.join(glmFolder, "tensors.safetensors"));
const checkpoint = await openCheckpoint(glmFolder);
const config = visualGlmConfig("m", (await readSettings(checkpoint, "config.json")) ?? {});
const { queries, text } = config;

/**
 * f32: sums in another order; every mistake that make-visualglm.py knows moves the logits by 2e-4 and more, most by a half.
 * f16: an input next to a rounding boundary may fall on its other side.
 */
const tolerances = { f32: 2e-5, f16: 2e-3 } as const;

for (const pass of expected.tensors) {
  const { prefix, dtype, image, input_ids, following } = pass;
  test(`${dtype}: what lies between after ${image}, ${input_ids.length} ids and ${following.length} more`, async () => {
    const got = await statesOf(dtype, pass);
    const wanted = [...tensors].filter(([key]) => key.startsWith(prefix));
    assert.ok(wanted.length >= 1 && tensors.has(`${prefix}logits`));
    for (const [key, values] of wanted) {
      const actual = got.get(key.slice(prefix.length)) ?? assert.fail(`${key} was computed`);
      expectNear(`${dtype} ${key}`, actual, values, tolerances[dtype]);
    }
    const oneByOne = got.get("logits one by one") ?? [];
    expectNear(`${dtype} logits one by one`, oneByOne, tensors.get(`${prefix}logits`) ?? [], tolerances[dtype]);
  });
}

for (const dtype of ["f32", "f16"] as const) {
  test(`${dtype}: the ids of every case`, async () => {
    const model = await loadModel(gpu, glmFolder, { dtype });
    assert.ok(expected.cases.length >= 16);
    await compareIds(model, expected.cases);
    model.release();
  });
}

test("SAT's names, its order of rows and a stray table of positions: the same ids", async () => {
  const folder = path.join(await temporaryFolder(), "sat");
  await writeAsSat(folder, text);
  const model = await loadModel(gpu, folder, { dtype: "f32" });
  await compareIds(model, expected.cases.slice(0, 6));
  model.release();
});

test("embedding and head above the binding limit, in pieces: the same ids", async () => {
  // Two bindings at least for each: 494 ids, 24 wide.
  const small = await openGpu({ nap: true, bindingLimit: 32 * 1024 });
  const model = await loadModel(small, glmFolder, { dtype: "f32" });
  await compareIds(model, expected.cases.slice(0, 3));
  model.release();
  await small.close();
});

test("where the queries look: one row each, over all patches and the class, weights that sum to 1", async () => {
  const model = await loadModel(gpu, glmFolder, { dtype: "f32", stages: ["encode", "query"] });
  const { encode, attention } = model.programs;
  assert.ok(encode && attention && model.card.lookers === "queries");
  const scheduler = new RowScheduler();
  const features = await scheduler.run(encode, await pixelsOf("shapes.png", model.card.image));
  const { shape, weights } = await scheduler.run(attention, { features, ids: [] });
  assert.deepEqual(shape, [queries, 5]);
  for (let query = 0; query < queries; query++) {
    const sum = weights.subarray(5 * query, 5 * query + 5).reduce((total, weight) => total + weight, 0);
    assert.ok(Math.abs(sum - 1) < 1e-5, `query ${query}: ${sum}`);
  }
  await scheduler.close("drain");
  model.release();
});

test("ids without a place for the image, or with two, are refused", async () => {
  const model = await loadModel(gpu, glmFolder, { dtype: "f32" });
  const scheduler = new RowScheduler();
  const [given] = expected.cases;
  assert.ok(given && model.programs.encodeAndQuery && model.programs.generate);
  const prompt = await scheduler.run(model.programs.encodeAndQuery, await pixelsOf(given.image, model.card.image));
  const ids = textIdsOf(given.input_ids, queries);
  for (const [textIds, times] of [
    [ids.filter((id) => id !== 0), 0],
    [[...ids, 0], 2],
  ] as const) {
    await assert.rejects(scheduler.run(model.programs.generate, { prompt, textIds, generation: generationOf(given) }), {
      name: "GenerationError",
      message: `generate: expected id 0 once among the ids, where the image is, got it ${times} times`,
    });
  }
  await scheduler.close("drain");
  model.release();
});

/** Every case that has an answer under the model's type, all at once. */
async function compareIds({ card, programs }: LoadedModel, cases: readonly GlmCase[]): Promise<void> {
  const { encodeAndQuery, generate } = programs;
  assert.ok(encodeAndQuery && generate);
  const scheduler = new RowScheduler();
  await Promise.all(
    cases.map(async (given) => {
      const ids = card.dtype === "f16" ? given.f16?.token_ids : given.token_ids;
      if (ids === undefined) return;
      const prompt = await scheduler.run(encodeAndQuery, await pixelsOf(given.image, card.image));
      const textIds = textIdsOf(given.input_ids, queries);
      const got = await scheduler.run(generate, { prompt, textIds, generation: generationOf(given) });
      assert.deepEqual(got, ids, given.name);
    }),
  );
  await scheduler.close("drain");
}

/** Every tensor that the fixture holds of one pass, by the fixture's names. */
async function statesOf(
  dtype: ActivationType,
  pass: GlmExpected["tensors"][number],
): Promise<Map<string, Float32Array>> {
  const model = await loadModel(gpu, checkpoint, { dtype, stages: ["encode", "query"] });
  const scheduler = new RowScheduler();
  const { encode, query } = model.programs;
  assert.ok(encode && query);
  const features = await scheduler.run(encode, await pixelsOf(pass.image, model.card.image));
  const prompt = await scheduler.run(query, features);
  await scheduler.close("drain");
  const found = new Map([
    ["features", valuesOf(features)],
    ["prompt", valuesOf(prompt)],
  ]);

  const loader = new WeightLoader(gpu, checkpoint, dtype);
  const names = { ...glmNames(config, visualGlmLayout(checkpoint.tensors.keys())), turns: turnsOf(text) };
  const weights: GlmWeights = await loader.load(names);
  const glm = glmLanguageModel(weights, text, { queries, cacheType: dtype });
  // By position: the ids with the image's slots among them, then those that follow.
  const ids = [...pass.input_ids, ...pass.following];
  const places = [
    ...Array.from({ length: queries }, (_, t) => pass.before + t),
    ...[...ids.keys()].filter((p) => p < pass.before || p >= pass.before + queries),
  ];
  const isSlot = (position: number) => position >= pass.before && position < pass.before + queries;
  const cursorAt = (position: number) => [isSlot(position) ? none : (ids[position] ?? none), position, position, 0];
  const steps = [pass.input_ids.length - 1, pass.input_ids.length, ids.length - 1];
  const shared = {
    table: await upload("table", [1, ids.length], [...ids.keys()]),
    contexts: await upload("contexts", [1], [pass.input_ids.length - 1]),
  };
  const promptTensor = gpu.alloc("prompt", [1, queries * text.width], dtype);
  await gpu.upload(promptTensor, prompt.bytes);

  const atOnce = {
    ...shared,
    cursors: await upload("cursors", [ids.length, 4], places.flatMap(cursorAt)),
    cache: await caches(glm, ids.length, dtype),
    prompt: promptTensor,
    lastRows: await upload("last rows", [steps.length], steps),
  };
  const list = await gpu.record("at once", (k) => {
    const observed = observe(k);
    const logits = glm.readPrompts(observed.recorder, atOnce);
    return { ...observed.states(), logits };
  });
  const bytes = await gpu.submit([list], { reads: Object.values(list.result) });
  for (const [i, key] of Object.keys(list.result).entries()) {
    const values = new Float32Array(bytes[i] as ArrayBuffer);
    found.set(key, key === "logits" ? values : byPosition(values, places));
  }

  const start = places.filter((position) => position < pass.input_ids.length);
  const rows = { ...shared, cache: await caches(glm, ids.length, dtype) };
  const beginning = {
    ...rows,
    cursors: await upload("cursors", [start.length, 4], start.flatMap(cursorAt)),
    prompt: promptTensor,
    lastRows: await upload("last rows", [1], [start.length - 1]),
  };
  const first = await gpu.record("beginning", (k) => glm.readPrompts(k, beginning));
  const [beginningLogits] = await gpu.submit([first], { reads: [first.result] });
  const logits = [...new Float32Array(beginningLogits as ArrayBuffer)];
  const next = gpu.alloc("cursor", [1, 4], "u32");
  const step = await gpu.record("one by one", (k) => glm.readTokens(k, { ...rows, cursors: next }));
  for (let t = pass.input_ids.length; t < ids.length; t++) {
    await gpu.upload(next, new Uint8Array(Uint32Array.from(cursorAt(t)).buffer));
    const [after] = await gpu.submit([step], { reads: [step.result] });
    if (steps.includes(t)) logits.push(...new Float32Array(after as ArrayBuffer));
  }
  found.set("logits one by one", Float32Array.from(logits));
  for (const made of [list, first, step]) made.destroy();
  loader.release();
  model.release();
  return found;
}

async function upload(key: string, shape: readonly number[], values: readonly number[]): Promise<Tensor> {
  const tensor = gpu.alloc(key, shape, "u32");
  await gpu.upload(tensor, new Uint8Array(Uint32Array.from(values).buffer));
  return tensor;
}

/** Caches full of NaN, which nothing may meet. */
async function caches({ cache }: LanguageModel, slots: number, type: ElementType & ActivationType) {
  const make = async () => {
    const words = (slots * cache.width) / (type === "f16" ? 2 : 1);
    const tensor = await upload("cache", [words], new Array<number>(words).fill(0x7fc07fc0));
    return { ...tensor, shape: [slots, cache.width], type };
  };
  return Promise.all(Array.from({ length: cache.layers }, async () => ({ keys: await make(), values: await make() })));
}

/** Rows in the order of their positions. */
function byPosition(values: Float32Array, places: readonly number[]): Float32Array {
  const sorted = new Float32Array(values.length);
  for (const [row, position] of places.entries()) {
    sorted.set(values.subarray(row * text.width, (row + 1) * text.width), position * text.width);
  }
  return sorted;
}

function valuesOf({ type, bytes }: Activation): Float32Array {
  const copy = bytes.slice().buffer;
  return type === "f16" ? unpackF16(new Uint32Array(copy)).slice(0, bytes.length / 2) : new Float32Array(copy);
}

/** Sees the blocks from outside: each ends with its second sum of a residual. */
function observe(k: Recorder): { recorder: Recorder; states(): Record<string, Tensor> } {
  const sums: Tensor[] = [];
  return {
    recorder: {
      softwareAdapter: k.softwareAdapter,
      variants: k.variants,
      scratch: (...given) => k.scratch(...given),
      launch(shader, launch) {
        k.launch(shader, launch);
        const { y } = launch.outputs;
        if (shader.startsWith("matmul") && launch.constants?.HAS_RESIDUAL === "true" && y && sums.at(-1) !== y)
          sums.push(y);
      },
    },
    states() {
      assert.equal(sums.length, 2 * text.layers);
      return Object.fromEntries(
        Array.from({ length: text.layers }, (_, i) => [`glm.layer.${i}`, sums[2 * i + 1] as Tensor]),
      );
    },
  };
}
