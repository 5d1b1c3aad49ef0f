// The parity tests of one BLIP fixture that writes texts: every block against transformers' tensors, and all ids.

import assert from "node:assert/strict";
import path from "node:path";
import { after, test } from "node:test";
import type { Gpu } from "../../src/gpu/device.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import { type ElementType, elementCount, type Tensor } from "../../src/gpu/tensor.ts";
import { view } from "../../src/gpu/view.ts";
import { blipConfig } from "../../src/models/blip-config.ts";
import { blipLanguageModel } from "../../src/models/blip-text.ts";
import { makingWords, memoryTensors } from "../../src/models/decode-memory.ts";
import {
  bucketsOf,
  cacheSlots,
  cacheStride,
  firstIds,
  type GenerateRow,
  itemRows,
} from "../../src/models/generate-row.ts";
import { vitParts } from "../../src/models/image-stage.ts";
import type { LanguageModel, PromptRows } from "../../src/models/language-model.ts";
import { WeightLoader } from "../../src/models/load.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { checkModel } from "../../src/models/model-card.ts";
import { type Activation, type ActivationType, defaultGeneration } from "../../src/stages.ts";
import { openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { blipDecoderNames, blipEncoderNames } from "../../src/weights/names/blip.ts";
import { vitNames } from "../../src/weights/names/blip-2-opt.ts";
import { fixtures, readJson } from "../fixture-files.ts";
import { openTestGpu } from "../gpu/open-test-gpu.ts";
import { packF16, unpackF16 } from "../kernels/harness.ts";
import { type ExpectedCase, expectNear, generationOf, pixelsOf, readTensors } from "./parity.ts";

/** test/fixtures/blip/<name>/expected.json; see make-blip.py. */
interface Expected {
  readonly tensors: readonly {
    readonly prefix: string;
    readonly dtype: ActivationType;
    readonly image: string;
    readonly text_ids: readonly number[];
  }[];
  readonly cases: readonly (Omit<ExpectedCase, "input_ids"> & { readonly text_ids: readonly number[] })[];
}

/**
 * f32: sums in another order; a tanh GELU or another epsilon gives 1e-4 and more.
 * f16: an input next to a rounding boundary may fall on its other side, half a step (2.4e-4 rms of that input) away.
 */
const tolerances = { f32: 6e-6, f16: 3e-4 } as const;

export function blipFolder(name: string): string {
  return path.join(fixtures, "blip", name);
}

export async function blipParityTests(name: string): Promise<void> {
  const gpu = await openTestGpu();
  after(() => gpu.close());
  const expected = await readJson<Expected>(`blip/${name}/expected.json`);
  const tensors = await readTensors(path.join(blipFolder(name), "tensors.safetensors"));

  for (const { prefix, dtype, image, text_ids } of expected.tensors) {
    test(`${name} ${dtype}: every block of ${image}`, async () => {
      const named = [...tensors].filter(([key]) => key.startsWith(prefix) && !key.endsWith("pixels"));
      const wanted = new Map(named.map(([key, values]) => [key.slice(prefix.length), values]));
      assert.ok(wanted.has("features") && wanted.has("logits") && wanted.has("decoder.layer.1"));
      const got = await blocksOf(gpu, name, dtype, image, text_ids, wanted);
      assert.deepEqual([...got.keys()].sort(), [...wanted.keys()].sort());
      for (const [block, values] of wanted) {
        expectNear(`${name} ${dtype} ${block}`, got.get(block) ?? [], values, tolerances[dtype]);
      }
    });
  }

  for (const dtype of ["f32", "f16"] as const) {
    test(`${name} ${dtype}: the ids of every case`, async () => {
      const model = await loadModel(gpu, blipFolder(name), { dtype });
      const { encode, generate } = model.programs;
      assert.ok(encode && generate);
      const scheduler = new RowScheduler();
      const images = [...new Set(expected.cases.map(({ image }) => image))];
      const encoded = images.map(async (image) => scheduler.run(encode, await pixelsOf(image, model.card.image)));
      const features = new Map(images.map((image, i) => [image, encoded[i] as Promise<Activation>]));
      const cases = expected.cases.flatMap((each) => {
        const ids = dtype === "f16" ? each.f16?.token_ids : each.token_ids;
        return ids === undefined ? [] : [{ ...each, ids }];
      });
      assert.ok(cases.length >= 10);
      const run = async (each: (typeof cases)[number]) =>
        scheduler.run(generate, {
          prompt: (await features.get(each.image)) as Activation,
          textIds: each.text_ids,
          generation: generationOf(each),
        });
      const together = await Promise.all(cases.map(run));
      for (const [i, each] of cases.entries()) assert.deepEqual(together[i], each.ids, each.name);
      await scheduler.close("drain");
      model.release();
    });
  }
}

/** The text half of a fixture that writes texts, on the GPU. */
export async function loadBlipLanguage(gpu: Gpu, name: string, dtype: ActivationType) {
  const checkpoint = await openCheckpoint(blipFolder(name));
  const { card } = await checkModel(checkpoint, dtype);
  const config = blipConfig(name, (await readSettings(checkpoint, "config.json")) ?? {});
  const loader = new WeightLoader(gpu, checkpoint, dtype);
  const decoder = await loader.load(blipDecoderNames(config));
  const encoder = card.family === "blip-vqa" ? await loader.load(blipEncoderNames(config)) : null;
  const model = blipLanguageModel(decoder, encoder, config.text, { features: card.features, cacheType: dtype });
  return { card, config, loader, decoder, encoder, model };
}

/**
 * Every tensor that the fixture holds of one pass over the prompt, by the fixture's names. Each block is fed with what the
 * fixture expects of the block before.
 */
async function blocksOf(
  gpu: Gpu,
  name: string,
  dtype: ActivationType,
  image: string,
  textIds: readonly number[],
  wanted: ReadonlyMap<string, Float32Array>,
): Promise<Map<string, Float32Array>> {
  const { card, config, loader, decoder, encoder, model } = await loadBlipLanguage(gpu, name, dtype);
  const vit = await loader.load(vitNames(config));
  const { features } = card;
  const upload = async (
    key: string,
    shape: readonly number[],
    words: Float32Array | Uint32Array,
    type: ElementType,
  ) => {
    const tensor = gpu.alloc(key, shape, type);
    await gpu.upload(tensor, new Uint8Array(words.buffer, words.byteOffset, words.byteLength));
    return tensor;
  };
  const forced = new Map<string, Tensor>();
  for (const [key, values] of wanted) {
    const type = key === "features" ? dtype : "f32";
    const width =
      key === "logits" ? model.vocabulary : key.includes("coder.") ? config.text.width : config.vision.width;
    const words = type === "f16" ? packF16(values) : values;
    forced.set(key, await upload(key, [values.length / width, width], words, type));
  }
  const { height, width, data } = await pixelsOf(image, card.image);
  const pixels = await upload("pixels", [3, height, width], data, "f32");

  const row: GenerateRow = {
    prompt: { kind: "features", type: dtype, shape: features, bytes: new Uint8Array(0) },
    textIds,
    generation: defaultGeneration,
  };
  const featuresGiven = forced.get("features") ?? assert.fail("features");
  const rows = await promptRows(gpu, model, row, featuresGiven);
  const found = new Map<string, Tensor>();
  const keep = (key: string, tensor: Tensor | undefined): Tensor => {
    assert.ok(tensor, key);
    found.set(key, tensor);
    return forced.get(key) ?? assert.fail(key);
  };
  const layers = (half: string, count: number) => Array.from({ length: count }, (_, i) => `${half}.layer.${i}`);
  const vitBlocks = ["vit.embeddings", ...layers("vit", vit.layers.length), "features"];
  const textBlocks = [
    ...(encoder ? ["encoder.embeddings", ...layers("encoder", encoder.layers.length)] : [null]),
    ...decoder.layers.map(() => null),
    "decoder.embeddings",
    ...layers("decoder", decoder.layers.length),
    "logits",
  ];
  const list = await gpu.record("blocks", (k) => {
    let x: Tensor = pixels;
    for (const [i, part] of vitParts(vit, config.vision, card).entries()) {
      x = keep(vitBlocks[i] ?? assert.fail(), part.run(k, [x], 1)[0]);
    }
    assert.equal(model.promptParts.length, textBlocks.length);
    let y: Tensor | null = null;
    for (const [i, part] of model.promptParts.entries()) {
      const block = textBlocks[i] ?? null;
      const made: Tensor = part.run(k, y, rows);
      y = block === null ? made : keep(block, made);
    }
    return [...found.values()];
  });
  const bytes = await gpu.submit([list], { reads: [...found.values()] });
  list.destroy();
  loader.release();
  // Rows behind the text are padding, which the fixture does not have.
  return new Map(
    [...found].map(([key, tensor], i) => {
      const words = bytes[i] as ArrayBuffer;
      const values = tensor.type === "f16" ? unpackF16(new Uint32Array(words)) : new Float32Array(words);
      return [key, values.slice(0, wanted.get(key)?.length)];
    }),
  );
}

/** One prompt alone, without padding, in buffers of its own. */
async function promptRows(gpu: Gpu, model: LanguageModel, row: GenerateRow, features: Tensor): Promise<PromptRows> {
  const buckets = { ...bucketsOf(row), textRows: row.textIds.length };
  const alloc = (name: string, shape: readonly number[], type: ElementType = "u32") => gpu.alloc(name, shape, type);
  const cacheOf = (name: string, slots: number) =>
    Array.from({ length: model.cache.layers }, () => ({
      keys: alloc(`${name}keys`, [slots, cacheStride(model)], model.cache.type),
      values: alloc(`${name}values`, [slots, cacheStride(model)], model.cache.type),
    }));
  const memory = memoryTensors(model, 1, buckets, alloc, cacheOf) ?? assert.fail("a memory");
  const ids = firstIds(model, row);
  const cursors = alloc("cursors", [ids.length, 4]);
  const table = alloc("table", [1, ids.length]);
  const lastRows = alloc("last rows", [1]);
  const words: (readonly [Tensor, Uint32Array])[] = [
    ...makingWords(memory, model, 1, itemRows(model, buckets), [[0, row]]),
    [memory.making.table, Uint32Array.from({ length: memory.rows }, (_, slot) => slot)],
    [cursors, Uint32Array.from(ids.flatMap((id, t) => [id, t, t, 0]))],
    [table, Uint32Array.from(ids.keys())],
    [lastRows, Uint32Array.of(ids.length - 1)],
  ];
  for (const [tensor, values] of words) await gpu.upload(tensor, new Uint8Array(values.buffer));
  return {
    prompt: view(features, [1, elementCount(features.shape)]),
    cursors,
    table,
    lastRows,
    cache: cacheOf("", cacheSlots(model, 1, buckets)),
    memory: memory.making,
  };
}
