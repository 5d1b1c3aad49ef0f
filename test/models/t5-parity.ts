// The parity tests of one BLIP-2 fixture with T5: every block of both stacks against transformers' tensors, the decoder's
// logits read at once and one by one, and all ids.

import assert from "node:assert/strict";
import path from "node:path";
import { after, test } from "node:test";
import type { Gpu } from "../../src/gpu/device.ts";
import type { Recorder } from "../../src/gpu/recorder.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import type { ElementType, Tensor } from "../../src/gpu/tensor.ts";
import { none } from "../../src/kernels/decode-state.ts";
import { blip2T5Config } from "../../src/models/blip-2-config.ts";
import { WeightLoader } from "../../src/models/load.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { relativeBuckets } from "../../src/models/relative-buckets.ts";
import { type T5Weights, t5LanguageModel } from "../../src/models/t5.ts";
import type { Activation, ActivationType } from "../../src/stages.ts";
import { openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { t5Names } from "../../src/weights/names/blip-2-t5.ts";
import { readJson } from "../fixture-files.ts";
import { openTestGpu } from "../gpu/open-test-gpu.ts";
import { unpackF16 } from "../kernels/harness.ts";
import { type ExpectedCase, expectNear, idsOfCases, modelFolder, pixelsOf, readTensors } from "./parity.ts";

interface Expected {
  readonly tensors: readonly {
    readonly prefix: string;
    readonly dtype: ActivationType;
    readonly image: string;
    readonly input_ids: readonly number[];
    readonly decoder_ids: readonly number[];
    /** The decoder ids after which logits are kept. */
    readonly steps: readonly number[];
  }[];
  readonly cases: readonly ExpectedCase[];
}

/**
 * f32: sums in another order; seen up to 3e-6, where a tanh GELU or a mean taken out gives 1e-4 and more.
 * f16: an input next to a rounding boundary may fall on its other side, half a step (2.4e-4 rms of that input) away.
 */
const tolerances = { f32: 1e-5, f16: 2e-3 } as const;

export async function t5ParityTests(name: string): Promise<void> {
  const gpu = await openTestGpu();
  after(() => gpu.close());
  const folder = modelFolder(name);
  const expected = await readJson<Expected>(`models/${name}/expected.json`);
  const tensors = await readTensors(path.join(folder, "tensors.safetensors"));

  for (const { prefix, dtype, image, input_ids, decoder_ids, steps } of expected.tensors) {
    test(`${name} ${dtype}: both stacks after ${image} and ${input_ids.length} ids`, async () => {
      const named = [...tensors].filter(([key]) => key.startsWith(prefix));
      const wanted = new Map(named.map(([key, values]) => [key.slice(prefix.length), values]));
      assert.ok(wanted.has("t5.states") && wanted.has("logits"));
      const got = await statesOf(gpu, name, dtype, { image, inputIds: input_ids, decoderIds: decoder_ids, steps });
      for (const [block, values] of wanted) {
        const actual = got.get(block);
        assert.ok(actual, `${block} was computed`);
        expectNear(`${name} ${dtype} ${block}`, actual, values, tolerances[dtype]);
      }
      const oneByOne = got.get("logits one by one");
      assert.ok(oneByOne);
      expectNear(`${name} ${dtype} logits one by one`, oneByOne, wanted.get("logits") ?? [], tolerances[dtype]);
    });
  }

  for (const dtype of ["f32", "f16"] as const) {
    test(`${name} ${dtype}: the ids of every case`, async () => {
      const model = await loadModel(gpu, folder, { dtype });
      const results = await idsOfCases(model, expected.cases);
      assert.ok(results.length >= 10);
      for (const { name: label, got, expected: ids } of results) assert.deepEqual(got, ids, label);
      model.release();
    });
  }
}

interface Pass {
  readonly image: string;
  readonly inputIds: readonly number[];
  readonly decoderIds: readonly number[];
  readonly steps: readonly number[];
}

/** Every tensor that the fixture may hold of one forward pass, by the fixture's names. */
async function statesOf(gpu: Gpu, name: string, dtype: ActivationType, pass: Pass): Promise<Map<string, Float32Array>> {
  const checkpoint = await openCheckpoint(modelFolder(name));
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

  const config = blip2T5Config(name, (await readSettings(checkpoint, "config.json")) ?? {});
  const { queries, text } = config;
  const loader = new WeightLoader(gpu, checkpoint, dtype);
  const weights: T5Weights = await loader.load(
    t5Names(config, {
      encoder: relativeBuckets(text.relativePositions, true),
      decoder: relativeBuckets(text.relativePositions, false),
    }),
  );
  const t5 = t5LanguageModel(weights, text, { queries, cacheType: dtype });
  const upload = async (
    key: string,
    shape: readonly number[],
    values: readonly number[],
    type: ElementType = "u32",
  ) => {
    const tensor = gpu.alloc(key, shape, type);
    await gpu.upload(tensor, new Uint8Array(Uint32Array.from(values).buffer));
    return tensor;
  };
  const textIds = pass.inputIds.slice(queries);
  // Two rows of padding behind the text, and four items' worth of NaN in the caches: nothing may meet them.
  const textRows = textIds.length + 2;
  const memoryRows = queries + textRows;
  const count = queries + textIds.length;
  const { decoderIds } = pass;
  const caches = (slots: number) =>
    Promise.all(
      Array.from({ length: t5.cache.layers }, async () => {
        const stride = dtype === "f16" ? Math.ceil(t5.cache.width / 2) * 2 : t5.cache.width;
        const make = async () => ({
          ...(await upload(
            "cache",
            [(slots * stride) / (dtype === "f16" ? 2 : 1)],
            new Array((slots * stride) / (dtype === "f16" ? 2 : 1)).fill(0x7fc07fc0),
          )),
          shape: [slots, stride],
          type: dtype,
        });
        return { keys: await make(), values: await make() };
      }),
    );
  const memory = {
    cache: await caches(memoryRows),
    table: await upload(
      "memory table",
      [1, memoryRows],
      Array.from({ length: memoryRows }, (_, i) => i),
    ),
    slots: await upload(
      "memory slots",
      [memoryRows, 4],
      Array.from({ length: memoryRows }, (_, i) => [none, none, i, none]).flat(),
    ),
    lengths: await upload("memory lengths", [1], [count]),
    text: await upload(
      "encoder text",
      [textRows, 4],
      Array.from({ length: textRows }, (_, t) =>
        t < textIds.length ? [textIds[t] ?? none, t, none, 0] : [none, none, none, 0],
      ).flat(),
    ),
  };
  const readers = (rows: number) =>
    upload("memory cursors", [rows, 4], Array.from({ length: rows }, () => [none, count - 1, none, 0]).flat());
  const positions = decoderIds.length;
  const table = await upload(
    "table",
    [1, positions],
    Array.from({ length: positions }, (_, t) => t),
  );
  const cursorAt = (t: number) => [decoderIds[t] ?? none, t, t, 0];
  const promptTensor = gpu.alloc("prompt", [1, queries * text.width], dtype);
  await gpu.upload(promptTensor, prompt.bytes);

  const atOnce = {
    cursors: await upload(
      "cursors",
      [positions, 4],
      decoderIds.flatMap((_, t) => cursorAt(t)),
    ),
    table,
    cache: await caches(positions),
    prompt: promptTensor,
    lastRows: await upload("last rows", [pass.steps.length], pass.steps),
    memory: { ...memory, cursors: await readers(positions) },
  };
  const list = await gpu.record("at once", (k) => {
    const observed = observe(k, weights);
    const logits = t5.readPrompts(observed.recorder, atOnce);
    return { ...observed.states(), logits };
  });
  const names = Object.keys(list.result);
  const bytes = await gpu.submit([list], { reads: Object.values(list.result) });
  for (const [i, key] of names.entries()) {
    const values = new Float32Array(bytes[i] as ArrayBuffer);
    const isMemory = key.startsWith("t5.encoder") || key === "t5.states";
    found.set(key, isMemory ? values.subarray(0, count * text.width) : values);
  }

  const next = gpu.alloc("cursor", [1, 4], "u32");
  const rows = { cursors: next, table, cache: await caches(positions) };
  const oneReader = await readers(1);
  const step = await gpu.record("one by one", (k) =>
    t5.readTokens(k, { ...rows, memory: { ...memory, cursors: oneReader } }),
  );
  const logits: number[] = [];
  for (let t = 0; t < positions; t++) {
    await gpu.upload(next, new Uint8Array(Uint32Array.from(cursorAt(t)).buffer));
    const [after] = await gpu.submit([step], { reads: [step.result] });
    if (pass.steps.includes(t)) logits.push(...new Float32Array(after as ArrayBuffer));
  }
  found.set("logits one by one", Float32Array.from(logits));
  list.destroy();
  step.destroy();
  loader.release();
  model.release();
  return found;
}

function valuesOf({ type, bytes }: Activation): Float32Array {
  const copy = bytes.slice().buffer;
  return type === "f16" ? unpackF16(new Uint32Array(copy)).slice(0, bytes.length / 2) : new Float32Array(copy);
}

/**
 * Sees the blocks from outside: an encoder block ends with its second sum of a residual, a decoder block with its third, and
 * the encoder with its norm.
 */
function observe(k: Recorder, weights: T5Weights): { recorder: Recorder; states(): Record<string, Tensor> } {
  const sums: Tensor[] = [];
  let states: Tensor | undefined;
  const recorder: Recorder = {
    softwareAdapter: k.softwareAdapter,
    variants: k.variants,
    scratch: (...given) => k.scratch(...given),
    launch(shader, launch) {
      k.launch(shader, launch);
      const { y } = launch.outputs;
      if (y === undefined) return;
      if (shader === "rms-norm" && launch.inputs.gain === weights.encoder.norm.gain) states = y;
      if (shader.startsWith("matmul") && launch.constants?.HAS_RESIDUAL === "true" && sums.at(-1) !== y) sums.push(y);
    },
  };
  return {
    recorder,
    states() {
      const encoder = weights.encoder.layers.map((_, i): [string, Tensor] => [
        `t5.encoder.${i}`,
        sums[2 * i + 1] as Tensor,
      ]);
      const from = 2 * encoder.length;
      const decoder = weights.decoder.layers.map((_, i): [string, Tensor] => [
        `t5.decoder.${i}`,
        sums[from + 3 * i + 2] as Tensor,
      ]);
      assert.equal(sums.length, from + 3 * decoder.length);
      assert.ok(states);
      return Object.fromEntries([...encoder, ...decoder, ["t5.states", states]]);
    },
  };
}
