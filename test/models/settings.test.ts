// Checkpoints that are run otherwise than they say: images of another size, and LAVIS' behaviour, against fixtures/settings.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, test } from "node:test";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import { toPixels } from "../../src/image/pixels.ts";
import { cosineOf } from "../../src/matching.ts";
import { interpolatePositions } from "../../src/models/interpolate-positions.ts";
import { loadModel } from "../../src/models/load-model.ts";
import type { Activation, ImageSettings, ModelCard, RunSettings } from "../../src/stages.ts";
import { lavisText } from "../../src/text/prompts.ts";
import { openTokenizer } from "../../src/text/tokenizer.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { readValues, type StoredTensor } from "../../src/weights/safetensors.ts";
import { modelText } from "../../src/workers/activities/model-text.ts";
import { fixtures, readJson } from "../fixture-files.ts";
import { openTestGpu } from "../gpu/open-test-gpu.ts";
import { type ExpectedCase, expectNear, generationOf, readTensors } from "./parity.ts";

/** test/fixtures/settings/expected.json; see make-settings.py. */
interface Expected {
  readonly images: readonly {
    readonly folder: string;
    readonly settings: RunSettings & { readonly imageSize: number };
    readonly image: string;
    readonly key: string;
    readonly texts: readonly Answered[];
  }[];
  readonly texts: readonly (Omit<Answered, "prompt"> & {
    readonly folder: string;
    readonly image: string;
    readonly asked: string | null;
    /** What transformers says, where its positions reach. */
    readonly huggingface: readonly number[] | null;
  })[];
  readonly matches: readonly {
    readonly folder: string;
    readonly image: string;
    readonly text: string;
    readonly itm_logits: readonly [number, number];
    readonly itc: number;
  }[];
}

type Answered = Pick<ExpectedCase, "generation" | "token_ids"> & { readonly prompt: string };

/** Sums in another order; seen up to 2e-6. */
const tolerance = 1e-5;
const lavis = { behaviour: "lavis" } as const;

const gpu = await openTestGpu();
after(() => gpu.close());
const expected = await readJson<Expected>("settings/expected.json");
const tensors = await readTensors(path.join(fixtures, "settings", "tensors.safetensors"));
const wanted = (key: string) => tensors.get(key) ?? assert.fail(`${key} is in the fixture`);

async function pixelsOf(image: string, settings: ImageSettings) {
  return toPixels(await readFile(path.join(fixtures, "images", image)), settings);
}

function values({ bytes }: Activation): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}

/** The ids of one text, from an image file on, through every stage. */
async function answers(
  folder: string,
  settings: RunSettings,
  cases: readonly {
    readonly image: string;
    readonly ids: (card: ModelCard) => Promise<number[]>;
    readonly generation: ExpectedCase["generation"];
  }[],
): Promise<{ readonly card: ModelCard; readonly ids: readonly number[][]; readonly features: readonly Activation[] }> {
  const model = await loadModel(gpu, path.join(fixtures, folder), { dtype: "f32", settings });
  const { encode, query, generate } = model.programs;
  assert.ok(encode && generate);
  const scheduler = new RowScheduler();
  const made = await Promise.all(
    cases.map(async ({ image, ids, generation }) => {
      const features = await scheduler.run(encode, await pixelsOf(image, model.card.image));
      const prompt = query ? await scheduler.run(query, features) : features;
      const textIds = await ids(model.card);
      return {
        features,
        ids: await scheduler.run(generate, { prompt, textIds, generation: generationOf({ generation }) }),
      };
    }),
  );
  await scheduler.close("drain");
  model.release();
  return { card: model.card, ids: made.map(({ ids }) => ids), features: made.map(({ features }) => features) };
}

test("positions of another grid are those of transformers, within 1e-5", async () => {
  assert.ok(expected.images.length >= 7);
  for (const { key, folder } of expected.images) {
    const resized = wanted(`positions.${key}`);
    const stored = await storedPositions(folder);
    const trained = await readValues(stored);
    const width = stored.shape.at(-1) ?? 0;
    const side = (tokens: number) => Math.sqrt(tokens - 1);
    const got = interpolatePositions(trained, {
      from: side(trained.length / width),
      to: side(resized.length / width),
      width,
    });
    assert.equal(got.length, resized.length);
    for (const [i, value] of resized.entries()) {
      const gap = Math.abs((got[i] ?? Number.NaN) - value);
      assert.ok(gap <= 1e-5, `${key}: value ${i} is ${got[i]} for ${value}`);
    }
  }
});

/** The positions of a ViT in a checkpoint. */
async function storedPositions(folder: string): Promise<StoredTensor> {
  const { tensors: stored } = await openCheckpoint(path.join(fixtures, folder));
  const isPositions = (name: string) => /^vision_model\.embeddings\.position_embedding(\.weight)?$/.test(name);
  return [...stored.values()].find(({ name }) => isPositions(name)) ?? assert.fail("positions");
}

for (const { folder, settings, image, key, texts } of expected.images) {
  test(`${folder} at ${settings.imageSize} pixels: features and ids are those of transformers`, async () => {
    if (texts.length === 0) {
      const purpose = folder.startsWith("clip") ? "labels" : "matches";
      const model = await loadModel(gpu, path.join(fixtures, folder), {
        dtype: "f32",
        purpose,
        settings,
        stages: ["encode"],
      });
      const scheduler = new RowScheduler();
      const features = await scheduler.run(
        model.programs.encode ?? assert.fail(),
        await pixelsOf(image, model.card.image),
      );
      expectNear(`${key} features`, values(features), wanted(`features.${key}`), tolerance);
      await scheduler.close("drain");
      model.release();
      return;
    }
    const tokenizer = await openTokenizer(path.join(fixtures, folder));
    const cases = texts.map(({ prompt, generation }) => ({
      image,
      generation,
      ids: async () => tokenizer.tokenize(prompt),
    }));
    const { card, ids, features } = await answers(folder, settings, cases);
    const tokens = wanted(`features.${key}`).length / card.features[1];
    assert.deepEqual(card.features, [tokens, card.features[1]]);
    assert.deepEqual([card.settings, card.vision], [settings, { positions: "bicubic" }]);
    expectNear(`${key} features`, values(features[0] ?? assert.fail()), wanted(`features.${key}`), tolerance);
    assert.deepEqual(
      ids,
      texts.map(({ token_ids }) => token_ids),
    );
  });
}

for (const folder of new Set(expected.texts.map((each) => each.folder))) {
  test(`${folder} as LAVIS runs it: ids`, async () => {
    const cases = expected.texts.filter((each) => each.folder === folder);
    assert.ok(
      cases.some(({ token_ids, huggingface }) => String(token_ids) !== String(huggingface)),
      "it shows",
    );
    const tokenizer = await openTokenizer(path.join(fixtures, folder));
    const task = folder.includes("vqa") ? "ask" : "caption";
    const asIn = (settings: RunSettings) =>
      answers(
        folder,
        settings,
        cases
          .filter(({ huggingface }) => settings === lavis || huggingface !== null)
          .map(({ image, asked, generation }) => ({
            ...{ image, generation },
            ids: async (card: ModelCard) => tokenizer.tokenize(modelText(card, task, asked)),
          })),
      );
    assert.deepEqual(
      (await asIn(lavis)).ids,
      cases.map(({ token_ids }) => token_ids),
    );
    const plain = cases.flatMap(({ huggingface }) => (huggingface === null ? [] : [huggingface]));
    assert.deepEqual((await asIn({})).ids, plain, "transformers' are the default");
  });
}

for (const name of ["models/blip2-opt-bf16", "blip/blip-vqa-half"]) {
  test(`${name} as LAVIS runs it: the epsilons of the ViT's norms`, async () => {
    const model = await loadModel(gpu, path.join(fixtures, name), {
      dtype: "f32",
      settings: lavis,
      stages: ["encode"],
    });
    const scheduler = new RowScheduler();
    const encode = model.programs.encode ?? assert.fail();
    const features = await scheduler.run(encode, await pixelsOf("shapes.png", model.card.image));
    expectNear(`${name} features`, values(features), wanted(`lavis.${path.basename(name)}`), tolerance);
    assert.deepEqual(model.card.settings, lavis);
    assert.deepEqual(model.card.vision, { normEps: name.startsWith("blip/") ? [1e-6, 1e-6] : [1e-6, 1e-5] });
    await scheduler.close("drain");
    model.release();
  });
}

for (const folder of new Set(expected.matches.map((each) => each.folder))) {
  test(`${folder} as LAVIS runs it: logits and cosines`, async () => {
    const model = await loadModel(gpu, path.join(fixtures, folder), {
      dtype: "f32",
      purpose: "matches",
      settings: lavis,
    });
    const { encode, queryImage, queryText, queryBoth } = model.programs;
    assert.ok(encode && queryImage && queryText && queryBoth);
    const scheduler = new RowScheduler();
    const tokenizer = await openTokenizer(path.join(fixtures, folder));
    for (const { image, text, itm_logits, itc } of expected.matches.filter((each) => each.folder === folder)) {
      const features = await scheduler.run(encode, await pixelsOf(image, model.card.image));
      const textIds = tokenizer.tokenize(lavisText(text));
      const logits = await scheduler.run(queryBoth, { features, textIds });
      expectNear(`${folder} ${text}: logits`, logits, itm_logits, 2e-5);
      const [vectors, vector] = [await scheduler.run(queryImage, features), await scheduler.run(queryText, textIds)];
      assert.ok(
        Math.abs(cosineOf(vectors, vector) - itc) <= 2e-5,
        `${text}: cosine ${cosineOf(vectors, vector)} for ${itc}`,
      );
    }
    await scheduler.close("drain");
    model.release();
  });
}
