// The whole flow in one process: image file and text in, transformers' ids and text out.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, test } from "node:test";
import { answer, answerFrom, instructedPrompt, promptOf, rankAnswers } from "../src/answer.ts";
import { adapterLine } from "../src/gpu/adapter.ts";
import { openGpu } from "../src/gpu/device.ts";
import { loadModel } from "../src/models/load-model.ts";
import { defaultGeneration } from "../src/stages.ts";
import { fixtures } from "./fixture-files.ts";
import { type ExpectedCase, generationOf, modelFolder, readExpected } from "./models/parity.ts";
import { stagesInThread } from "./models/stages-in-thread.ts";
import { fakeStages, instructedCard } from "./workers/fake-stages.ts";

const name = "blip2-opt-tiny";
const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());
const model = await loadModel(gpu, modelFolder(name), { dtype: "f32" });
const stages = await stagesInThread(model, modelFolder(name));
const { cases } = await readExpected(name);

function imageOf({ image }: ExpectedCase): Promise<Uint8Array> {
  return readFile(path.join(fixtures, "images", image));
}

test("every case: the ids and the text of transformers", async () => {
  assert.ok(cases.length > 40);
  await Promise.all(
    cases.map(async (given) => {
      const got = await answer(stages, await imageOf(given), given.prompt, generationOf(given));
      assert.deepEqual(got, { text: given.text, tokenIds: given.token_ids }, given.name);
    }),
  );
});

test("one prompt serves every text about its image", async () => {
  const given = cases.filter(({ image }) => image === "shapes.png");
  assert.ok(new Set(given.map(({ prompt }) => prompt)).size > 1);
  const prompt = await promptOf(stages, await imageOf(given[0] as ExpectedCase));
  for (const each of given) {
    const { text } = await answerFrom(stages, prompt, each.prompt, generationOf(each));
    assert.equal(text, each.text, each.name);
  }
});

test("a Q-Former that reads the question: one encode for all questions about an image, one query for each", async () => {
  const fake = fakeStages(0, async () => {}, instructedCard);
  const image = Buffer.from("image");
  const features = await promptOf(fake, image);
  assert.equal(features.kind, "features");
  const texts: string[] = [];
  for (const question of ["what?", "how many?", "", null]) {
    texts.push((await answerFrom(fake, features, question, defaultGeneration)).text);
  }
  assert.deepEqual(
    fake.rows.map(({ stage }) => stage),
    ["encode", ...["what?", "how many?", "", null].flatMap(() => ["query", "generate"])],
  );
  const [, , empty, none] = texts;
  assert.equal(none, empty, "no text is the empty instruction");
  assert.equal(new Set(texts).size, 3);
  assert.equal((await answer(fake, image, "what?", defaultGeneration)).text, texts[0]);
  const prompt = await instructedPrompt(fake, features, "what?");
  assert.equal(
    (await answerFrom(fake, prompt, "what?", defaultGeneration)).text,
    texts[0],
    "a prompt is taken as it is",
  );
  const before = fake.rows.length;
  await rankAnswers(fake, features, "what?", ["a", "bb"]);
  assert.equal(fake.rows.at(-1)?.stage, "query");
  assert.equal(fake.rows.length - before, 1);
});
