// The parity tests of one CLIP fixture: every layer of both encoders, every vector, every logit, against transformers.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, test } from "node:test";
import { labelScores } from "../../src/classifying.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { Recorder } from "../../src/gpu/recorder.ts";
import type { RowProgram } from "../../src/gpu/row-program.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import { toPixels } from "../../src/image/pixels.ts";
import { textParts, visionParts } from "../../src/models/clip.ts";
import { clipConfig } from "../../src/models/clip-config.ts";
import { cursorBytes } from "../../src/models/contrast.ts";
import { WeightLoader } from "../../src/models/load.ts";
import { type LoadedModel, loadModel } from "../../src/models/load-model.ts";
import { vectorValues } from "../../src/search/similarity.ts";
import type { Activation, ActivationType, Pixels, Vectors } from "../../src/stages.ts";
import { openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { clipTextNames, clipVisionNames } from "../../src/weights/names/clip.ts";
import { fixtures } from "../fixture-files.ts";
import { openTestGpu } from "../gpu/open-test-gpu.ts";
import { expectNear, readTensors } from "./parity.ts";

/** test/fixtures/clip/<name>/expected.json; see make-clip.py. */
export interface ExpectedLabels {
  readonly logit_scale: number;
  readonly pixels_sha256: Readonly<Record<string, string>>;
  readonly pictures: readonly string[];
  readonly texts: readonly { readonly text: string; readonly ids: readonly number[] }[];
  readonly layers_of: { readonly image: string; readonly text: number };
  /** (pictures, texts) */
  readonly logits_per_image: readonly (readonly number[])[];
  readonly f16: { readonly logits_per_image: readonly (readonly number[])[] };
}

export function clipFolder(name: string): string {
  return path.join(fixtures, "clip", name);
}

export async function readExpectedLabels(name: string): Promise<ExpectedLabels> {
  return JSON.parse(await readFile(path.join(clipFolder(name), "expected.json"), "utf8"));
}

/**
 * Of vectors, and of logits beside the scale. f32: sums in another order, where the smallest mistake that make-clip.py
 * tries, gelu for quick gelu, gives 2e-3. f16: an input next to a rounding boundary may fall on its other side, half a step
 * away; vectors are handed over in f16.
 */
const tolerances = { f32: 2e-5, f16: 2e-3 } as const;

type Model = LoadedModel<"labels">;

function run<In, Out>(scheduler: RowScheduler, program: RowProgram<In, Out> | undefined, row: In): Promise<Out> {
  assert.ok(program);
  return scheduler.run(program, row);
}

export async function clipParityTests(name: string): Promise<void> {
  const gpu = await openTestGpu();
  after(() => gpu.close());
  const folder = clipFolder(name);
  const expected = await readExpectedLabels(name);
  const tensors = await readTensors(path.join(folder, "tensors.safetensors"));
  const wanted = (key: string) => tensors.get(key) ?? assert.fail(`${key} is in the fixture`);

  test(`${name}: both encoders after their embeddings and after every layer`, async () => {
    const got = await layersOf(gpu, name, expected);
    assert.deepEqual(
      [...got.keys()].sort(),
      [...tensors.keys()].flatMap((key) => /^f32\.(\w+\.\d)$/.exec(key)?.[1] ?? []).sort(),
    );
    for (const [key, values] of got) expectNear(`${name} ${key}`, values, wanted(`f32.${key}`), tolerances.f32);
  });

  for (const dtype of ["f32", "f16"] as const) {
    test(`${name} ${dtype}: vectors and logits, all at once and alone`, async () => {
      const model = await loadModel(gpu, folder, { dtype, purpose: "labels" });
      const { vectors, maxPositions, logitScale } = model.card;
      assert.equal(maxPositions, Math.max(...expected.texts.map(({ ids }) => ids.length)));
      assert.ok(Math.abs(logitScale - expected.logit_scale) < 1e-5 * logitScale, `${logitScale}`);
      const all = await everything(model, expected, "together");
      assert.deepEqual(
        await everything(model, expected, "alone"),
        all,
        "the same bits, whatever they are batched with",
      );
      const tolerance = tolerances[dtype];
      const rows = (all: readonly Vectors[]) => Float32Array.from(all.flatMap((each) => [...vectorValues(each)]));
      for (const each of [...all.images, ...all.texts]) assert.deepEqual(each.shape, vectors);
      expectNear(`${name} ${dtype} images`, rows(all.images), wanted(`${dtype}.images`), tolerance);
      expectNear(`${name} ${dtype} texts`, rows(all.texts), wanted(`${dtype}.texts`), tolerance);
      const { logits_per_image } = dtype === "f16" ? expected.f16 : expected;
      for (const [i, logits] of logits_per_image.entries()) {
        const [image = assert.fail("an image")] = [all.images[i]].map((each) => each && vectorValues(each));
        const scores = labelScores(image, all.texts.map(vectorValues), logitScale);
        for (const [t, { logit }] of scores.entries()) {
          const gap = Math.abs(logit - (logits[t] ?? Number.NaN));
          assert.ok(gap <= tolerance * logitScale, `${expected.pictures[i]}, text ${t}: ${logit} for ${logits[t]}`);
        }
      }
      model.release();
    });
  }

  test(`${name}: texts that the model cannot read are refused, and each stage can be alone`, async () => {
    const model = await loadModel(gpu, folder, { dtype: "f32", purpose: "labels", stages: ["query"] });
    assert.deepEqual(Object.keys(model.programs).sort(), ["queryImage", "queryText"]);
    const scheduler = new RowScheduler();
    const { queryText } = model.programs;
    const most = model.card.maxPositions;
    const longest =
      expected.texts.find(({ ids }) => ids.length === most)?.ids ?? assert.fail("a text of all positions");
    await run(scheduler, queryText, longest);
    await assert.rejects(run(scheduler, queryText, [...longest, 3]), {
      name: "TextError",
      message: `text: expected at most ${most} tokens, the positions that the model has, got ${most + 1}; shorten the text`,
    });
    await assert.rejects(run(scheduler, queryText, []), { name: "TextError", message: /at least one token/ });
    for (const id of [100_000, -1, 1.5]) {
      const refused = run(scheduler, queryText, [2, id]);
      await assert.rejects(refused, { name: "TextError", message: new RegExp(`below the model's \\d+, got ${id}$`) });
    }
    await scheduler.close("drain");
    model.release();
    const eyes = await loadModel(gpu, folder, { dtype: "f32", purpose: "vectors", stages: ["encode"] });
    assert.deepEqual(Object.keys(eyes.programs), ["encode"]);
    eyes.release();
  });
}

async function pixelsOf(model: Pick<Model, "card">, picture: string): Promise<Pixels> {
  return toPixels(await readFile(path.join(fixtures, "images", picture)), model.card.image);
}

/** @param how all rows of a program at once, so that they share batches, or one after the other */
async function everything(
  model: Model,
  { pictures, texts }: ExpectedLabels,
  how: "together" | "alone",
): Promise<{ readonly images: readonly Vectors[]; readonly texts: readonly Vectors[] }> {
  const scheduler = new RowScheduler();
  const { encode, queryImage, queryText } = model.programs;
  const each = async <In, Out>(items: readonly In[], work: (item: In) => Promise<Out>): Promise<Out[]> => {
    if (how === "together") return Promise.all(items.map(work));
    const results: Out[] = [];
    for (const item of items) results.push(await work(item));
    return results;
  };
  const pixels = await Promise.all(pictures.map((picture) => pixelsOf(model, picture)));
  const features: Activation[] = await each(pixels, (row) => run(scheduler, encode, row));
  const images = await each(features, (row) => run(scheduler, queryImage, row));
  const made = await each(texts, ({ ids }) => run(scheduler, queryText, ids));
  if (how === "together") {
    const { rows, batches } = scheduler.stats(queryText as RowProgram<never, unknown>);
    assert.ok(batches < rows, `${batches} batches of ${rows} rows: texts of unequal length shared one`);
  }
  await scheduler.close("drain");
  return { images, texts: made };
}

/** One image and one text after each part of its encoder but the last, which hands over. */
async function layersOf(
  gpu: Gpu,
  name: string,
  { layers_of, texts }: ExpectedLabels,
): Promise<Map<string, Float32Array>> {
  const checkpoint = await openCheckpoint(clipFolder(name));
  const config = clipConfig(name, (await readSettings(checkpoint, "config.json")) ?? {});
  const { card, release } = await loadModel(gpu, checkpoint, { dtype: "f32", purpose: "labels", stages: [] });
  const loader = new WeightLoader(gpu, checkpoint, "f32" satisfies ActivationType);
  const vision = await loader.load(clipVisionNames(config));
  const text = await loader.load(clipTextNames(config));
  const upload = async (name: string, shape: readonly number[], type: "f32" | "u32", bytes: Uint8Array) => {
    const tensor = gpu.alloc(name, shape, type);
    await gpu.upload(tensor, bytes);
    return tensor;
  };
  const { data, height, width } = await pixelsOf({ card }, layers_of.image);
  const pixels = await upload("pixels", [3, height, width], "f32", new Uint8Array(data.buffer));
  const ids = texts[layers_of.text]?.ids ?? assert.fail("the text of the layers");
  // Room for more than the text has: what is behind it must change nothing.
  const textRows = ids.length + 3;
  const cursors = await upload("cursors", [textRows, 4], "u32", cursorBytes(ids, textRows));
  const ends = await upload("ends", [1], "u32", new Uint8Array(Uint32Array.of(ids.length - 1).buffer));
  const list = await gpu.record("layers", (k: Recorder) => {
    const seen: Record<string, Tensor | undefined> = {};
    const walk = (what: string, parts: ReturnType<typeof visionParts>, inputs: readonly Tensor[]) =>
      parts.slice(0, -1).reduce((x, part, i) => {
        const y = part.run(k, x, 1);
        seen[`${what}.${i}`] = y[0];
        return y;
      }, inputs);
    walk("vision", visionParts(vision, config, card), [pixels]);
    walk("text", textParts(text, config.text, card, textRows), [cursors, ends]);
    return seen;
  });
  const entries = Object.entries(list.result).filter((entry): entry is [string, Tensor] => entry[1] !== undefined);
  const results = await gpu.submit([list], { reads: entries.map(([, tensor]) => tensor) });
  const found = new Map(
    entries.map(([key], i) => {
      const values = new Float32Array(results[i] as ArrayBuffer);
      return [key, key.startsWith("text") ? values.subarray(0, ids.length * config.text.width) : values] as const;
    }),
  );
  list.destroy();
  loader.release();
  release();
  return found;
}
