// The parity tests of one retrieval fixture: every layer, every vector, every match, against transformers.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, test } from "node:test";
import type { Gpu } from "../../src/gpu/device.ts";
import type { Recorder } from "../../src/gpu/recorder.ts";
import type { RowProgram } from "../../src/gpu/row-program.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import { toPixels } from "../../src/image/pixels.ts";
import { cosineOf, matchProbability } from "../../src/matching.ts";
import { blip2RetrievalConfig } from "../../src/models/blip-2-config.ts";
import { WeightLoader } from "../../src/models/load.ts";
import { type LoadedModel, loadModel } from "../../src/models/load-model.ts";
import { type QFormerSequence, qFormerBlock, queryEmbeddings, textEmbeddings } from "../../src/models/q-former.ts";
import { vectorValues } from "../../src/search/similarity.ts";
import type { Activation, Pixels } from "../../src/stages.ts";
import { openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { qFormerWithTextNames } from "../../src/weights/names/blip-2-retrieval.ts";
import { fixtures } from "../fixture-files.ts";
import { openTestGpu } from "../gpu/open-test-gpu.ts";
import { expectNear, readTensors } from "./parity.ts";

interface Answer {
  readonly itm_logits: readonly [number, number];
  readonly itm: number;
  readonly itc: number;
}

/** test/fixtures/retrieval/<name>/expected.json; see make-retrieval.py. */
export interface ExpectedMatches {
  readonly texts: readonly { readonly text: string; readonly ids: readonly number[] }[];
  readonly layers_of: { readonly image: string; readonly text: number };
  readonly cases: readonly (Answer & { readonly image: string; readonly text: string; readonly f16: Answer })[];
}

export function retrievalFolder(name: string): string {
  return path.join(fixtures, "retrieval", name);
}

export async function readExpectedMatches(folder: string): Promise<ExpectedMatches> {
  return JSON.parse(await readFile(path.join(folder, "expected.json"), "utf8"));
}

/**
 * f32: sums in another order, through the whole model; seen up to 6.4e-6, where a tanh GELU gives 1e-4 and more.
 * f16: an input next to a rounding boundary may fall on its other side, half a step away; vectors are handed over in f16.
 */
const tolerances = { f32: 2e-5, f16: 2e-3 } as const;

/** Everything that the programs make of the fixture's images and texts. */
interface Computed {
  readonly features: ReadonlyMap<string, Activation>;
  readonly images: ReadonlyMap<string, Awaited<ReturnType<typeof run<"queryImage">>>>;
  readonly texts: readonly Awaited<ReturnType<typeof run<"queryText">>>[];
  /** By image and text. */
  readonly logits: ReadonlyMap<string, readonly [number, number]>;
}

type Programs = Required<LoadedModel<"matches">["programs"]>;
type InputOf<P> = P extends RowProgram<infer In, unknown> ? In : never;
type OutputOf<P> =
  P extends RowProgram<never, infer Out> ? Out : P extends RowProgram<infer _, infer Out> ? Out : never;

export function run<Name extends keyof Programs>(
  scheduler: RowScheduler,
  { programs }: LoadedModel<"matches">,
  name: Name,
  row: InputOf<Programs[Name]>,
): Promise<OutputOf<Programs[Name]>> {
  const program = programs[name] as RowProgram<typeof row, OutputOf<Programs[Name]>> | undefined;
  assert.ok(program, name);
  return scheduler.run(program, row);
}

/** The tests of a BLIP-2 fixture. */
export function retrievalParityTests(name: string): Promise<void> {
  return matchParityTests(retrievalFolder(name), queryLayersOf);
}

/** The features of one image, and the sequence after every layer of a matching pass with one text, by the fixture's names. */
export type LayersOf = (gpu: Gpu, folder: string, expected: ExpectedMatches) => Promise<Map<string, Float32Array>>;

/**
 * @param folder of a checkpoint with expected.json and tensors.safetensors
 * @param halfLogits tolerance of the matching head's logits under f16
 */
export async function matchParityTests(
  folder: string,
  layersOf: LayersOf,
  halfLogits: number = tolerances.f16,
): Promise<void> {
  const gpu = await openTestGpu();
  after(() => gpu.close());
  const name = path.basename(folder);
  const expected = await readExpectedMatches(folder);
  const tensors = await readTensors(path.join(folder, "tensors.safetensors"));
  const wanted = (key: string) => tensors.get(key) ?? assert.fail(`${key} is in the fixture`);

  test(`${name}: features, and every layer of a matching pass`, async () => {
    const got = await layersOf(gpu, folder, expected);
    assert.ok(got.size >= 4);
    for (const [key, values] of got) expectNear(`${name} ${key}`, values, wanted(`f32.${key}`), tolerances.f32);
  });

  for (const dtype of ["f32", "f16"] as const) {
    test(`${name} ${dtype}: vectors, cosines, logits and probabilities, all at once`, async () => {
      const model = await loadModel(gpu, folder, { dtype, purpose: "matches" });
      const all = await everything(model, expected, "together");
      const alone = await everything(model, expected, "alone");
      assert.deepEqual(alone, all, "the same bits, whatever they are batched with");
      const tolerance = tolerances[dtype];
      for (const [picture, vectors] of all.images) {
        expectNear(
          `${name} ${dtype} ${picture}`,
          vectorValues(vectors),
          wanted(`${dtype}.image.${picture}`),
          tolerance,
        );
      }
      for (const [i, vector] of all.texts.entries()) {
        expectNear(`${name} ${dtype} text ${i}`, vectorValues(vector), wanted(`${dtype}.text.${i}`), tolerance);
      }
      assert.equal(all.logits.size, expected.cases.length);
      for (const each of expected.cases) {
        const { itm_logits, itm, itc } = dtype === "f16" ? each.f16 : each;
        const label = `${each.image}, ${JSON.stringify(each.text)}`;
        const logits = all.logits.get(label) ?? assert.fail(label);
        const at = expected.texts.findIndex(({ text }) => text === each.text);
        const [vectors, vector] = [all.images.get(each.image), all.texts[at]];
        assert.ok(vectors && vector);
        const most = tolerances[dtype];
        for (const [i, logit] of itm_logits.entries()) {
          const gap = Math.abs((logits[i] ?? Number.NaN) - logit);
          assert.ok(
            gap <= (dtype === "f16" ? halfLogits : most) * Math.max(1, Math.abs(logit)),
            `${label}: logits ${logits} for ${itm_logits}`,
          );
        }
        assert.ok(
          Math.abs(matchProbability(logits) - itm) <= most,
          `${label}: itm ${matchProbability(logits)} for ${itm}`,
        );
        assert.ok(
          Math.abs(cosineOf(vectors, vector) - itc) <= most,
          `${label}: itc ${cosineOf(vectors, vector)} for ${itc}`,
        );
      }
      model.release();
    });
  }

  test(`${name}: texts that the model cannot read are refused`, async () => {
    const model = await loadModel(gpu, folder, { dtype: "f32", purpose: "matches" });
    const scheduler = new RowScheduler();
    const most = model.card.maxPositions;
    const longest =
      expected.texts.find(({ ids }) => ids.length === most)?.ids ?? assert.fail("a text of all positions");
    await run(scheduler, model, "queryText", longest);
    await assert.rejects(run(scheduler, model, "queryText", [...longest, 3]), {
      name: "TextError",
      message: `text: expected at most ${most} tokens, the positions that the model has, got ${most + 1}; shorten the text`,
    });
    await assert.rejects(run(scheduler, model, "queryText", []), { name: "TextError", message: /at least one token/ });
    for (const id of [100_000, -1, 1.5]) {
      const refused = run(scheduler, model, "queryText", [2, id]);
      await assert.rejects(refused, { name: "TextError", message: new RegExp(`below the model's \\d+, got ${id}$`) });
    }
    await scheduler.close("drain");
    model.release();
  });
}

export async function pixelsOf(model: LoadedModel<"matches">, picture: string): Promise<Pixels> {
  return toPixels(await readFile(path.join(fixtures, "images", picture)), model.card.image);
}

/** @param how all rows of a program at once, so that they share batches, or one after the other */
async function everything(
  model: LoadedModel<"matches">,
  { cases, texts }: ExpectedMatches,
  how: "together" | "alone",
): Promise<Computed> {
  const scheduler = new RowScheduler();
  const each = async <In, Out>(items: readonly In[], work: (item: In) => Promise<Out>): Promise<Out[]> => {
    if (how === "together") return Promise.all(items.map(work));
    const results: Out[] = [];
    for (const item of items) results.push(await work(item));
    return results;
  };
  const pictures = [...new Set(cases.map(({ image }) => image))];
  const made = await each(pictures, async (picture) => run(scheduler, model, "encode", await pixelsOf(model, picture)));
  const features = new Map(pictures.map((picture, i) => [picture, made[i] as Activation]));
  const vectors = await each(made, (row) => run(scheduler, model, "queryImage", row));
  const logits = await each(cases, ({ image, text }) => {
    const textIds = texts.find((given) => given.text === text)?.ids ?? [];
    return run(scheduler, model, "queryBoth", { features: features.get(image) as Activation, textIds });
  });
  const result = {
    features,
    images: new Map(pictures.map((picture, i) => [picture, vectors[i] as (typeof vectors)[number]])),
    texts: await each(texts, ({ ids }) => run(scheduler, model, "queryText", ids)),
    logits: new Map(
      cases.map(({ image, text }, i) => [`${image}, ${JSON.stringify(text)}`, logits[i] as readonly [number, number]]),
    ),
  };
  if (how === "together") {
    const { rows, batches } = scheduler.stats(model.programs.queryBoth as RowProgram<never, unknown>);
    assert.ok(batches < rows, `${batches} batches of ${rows} rows: texts of unequal length shared one`);
  }
  await scheduler.close("drain");
  return result;
}

/** Queries and text after every layer of the Q-Former. */
async function queryLayersOf(
  gpu: Gpu,
  folder: string,
  { layers_of, texts }: ExpectedMatches,
): Promise<Map<string, Float32Array>> {
  const model = await loadModel(gpu, folder, { dtype: "f32", purpose: "matches", stages: ["encode"] });
  const scheduler = new RowScheduler();
  const features = await run(scheduler, model, "encode", await pixelsOf(model, layers_of.image));
  const found = new Map([["features", new Float32Array(features.bytes.slice().buffer)]]);
  const checkpoint = await openCheckpoint(folder);
  const config = blip2RetrievalConfig(folder, (await readSettings(checkpoint, "config.json")) ?? {});
  const loader = new WeightLoader(gpu, checkpoint, "f32");
  const weights = await loader.load(qFormerWithTextNames(config));
  const ids = texts[layers_of.text]?.ids ?? assert.fail("the text of the layers");
  const image = gpu.alloc("features", features.shape, "f32");
  await gpu.upload(image, features.bytes);
  const cursors = gpu.alloc("cursors", [ids.length, 4], "u32");
  await gpu.upload(cursors, new Uint8Array(Uint32Array.from(ids.flatMap((id, i) => [id, i, 0, 0])).buffer));
  const list = await gpu.record("layers", (k: Recorder) => {
    let x: QFormerSequence = { queries: queryEmbeddings(k, weights, 1), text: textEmbeddings(k, weights, cursors) };
    const seen: Record<string, Tensor | null> = { "both.0.queries": x.queries, "both.0.text": x.text };
    for (const [i, layer] of weights.layers.entries()) {
      x = qFormerBlock(k, layer, x, image, { batch: 1, heads: config.qFormer.heads });
      seen[`both.${i + 1}.queries`] = x.queries;
      seen[`both.${i + 1}.text`] = x.text;
    }
    return seen;
  });
  const entries = Object.entries(list.result).filter((entry): entry is [string, Tensor] => entry[1] !== null);
  const results = await gpu.submit([list], { reads: entries.map(([, tensor]) => tensor) });
  for (const [i, [key]] of entries.entries()) found.set(key, new Float32Array(results[i] as ArrayBuffer));
  list.destroy();
  loader.release();
  model.release();
  await scheduler.close("drain");
  return found;
}
