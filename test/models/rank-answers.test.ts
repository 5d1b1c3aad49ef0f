// Given answers to a question against torch's log-probabilities, of the models whose encoder reads the question, and of
// VisualGLM, whose answers begin behind an id of their own.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, test } from "node:test";
import { promptOf, rankAnswers } from "../../src/answer.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { loadModel } from "../../src/models/load-model.ts";
import type { Dtype } from "../../src/stages.ts";
import { modelText } from "../../src/workers/activities/model-text.ts";
import { fixtures, readJson } from "../fixture-files.ts";
import { openTestGpu } from "../gpu/open-test-gpu.ts";
import { expectClose } from "../kernels/harness.ts";
import { blipFolder } from "./blip-parity.ts";
import { glmFolder } from "./glm-checkpoint.ts";
import { modelFolder } from "./parity.ts";
import { stagesInThread } from "./stages-in-thread.ts";

/** test/fixtures/rank.json; see make-rank.py. */
interface Expected {
  readonly keep: number;
  readonly answers: readonly string[];
  readonly models: Readonly<
    Record<
      string,
      readonly {
        readonly image: string;
        readonly question: string;
        /** Places of the answers compared whole. */
        readonly kept: readonly number[];
        /** Of all answers. */
        readonly scores: readonly number[];
      }[]
    >
  >;
}

const gpu: Gpu = await openTestGpu();
after(() => gpu.close());
const { keep, answers, models } = await readJson<Expected>("rank.json");

function folderOf(name: string): string {
  if (name.startsWith("instructblip-")) return path.join(fixtures, "instructblip", name);
  if (name === path.basename(glmFolder)) return glmFolder;
  return name.startsWith("blip-") ? blipFolder(name) : modelFolder(name);
}

async function rankings(name: string, dtype: Dtype, options: { readonly keep?: number } = {}) {
  const folder = folderOf(name);
  const model = await loadModel(gpu, folder, { dtype });
  const stages = await stagesInThread(model, folder);
  const all = await Promise.all(
    (models[name] ?? assert.fail(name)).map(async (expected) => {
      const prompt = await promptOf(stages, await readFile(path.join(fixtures, "images", expected.image)));
      const text = modelText(stages.card, "ask", expected.question) ?? "";
      return { expected, ranked: await rankAnswers(stages, prompt, text, answers, options) };
    }),
  );
  await stages.close();
  model.release();
  return { card: model.card, all };
}

/** Of each answer, by its place; equal answers in the order of their places. */
function scoresByPlace(ranked: readonly { readonly text: string; readonly score: number }[]): (number | undefined)[] {
  const left = [...ranked];
  return answers.map((text) => {
    const at = left.findIndex((each) => each.text === text);
    return at === -1 ? undefined : left.splice(at, 1)[0]?.score;
  });
}

for (const name of Object.keys(models)) {
  test(`${name}: every answer's score is torch's, the likeliest first`, async () => {
    const { card, all } = await rankings(name, "f32", { keep: answers.length });
    assert.equal(card.answersKept, name.startsWith("blip-vqa") ? 128 : undefined);
    for (const { expected, ranked } of all) {
      expectClose(
        scoresByPlace(ranked).map((score) => score ?? Number.NaN),
        expected.scores,
        { absolute: 2e-4, relative: 1e-5, reason: "up to seven logarithms of f32 sums" },
      );
      const order = ranked.map(({ score }) => score);
      assert.deepEqual(
        order,
        [...order].sort((a, b) => b - a),
      );
      assert.equal(ranked[0]?.text, answers[expected.scores.indexOf(Math.max(...expected.scores))]);
    }
  });
}

for (const name of ["blip-vqa-tiny", "blip-vqa-half"]) {
  test(`${name}: only the answers with the likeliest first ids are compared whole`, async () => {
    const { all } = await rankings(name, "f32", { keep });
    for (const { expected, ranked } of all) {
      assert.equal(ranked.length, keep);
      const kept = expected.kept.map((place) => [answers[place], expected.scores[place] ?? Number.NaN] as const);
      const byScore = kept.sort(([, a], [, b]) => b - a);
      assert.deepEqual(ranked.map(({ text }) => text).sort(), byScore.map(([text]) => text).sort());
      assert.equal(ranked[0]?.text, byScore[0]?.[0]);
      expectClose(
        ranked.map(({ score }) => score),
        byScore.map(([, score]) => score),
        { absolute: 2e-4, relative: 1e-5, reason: "up to seven logarithms of f32 sums" },
      );
    }
  });
}

test("f16: the scores of one answer do not depend on how many there are", async () => {
  const folder = modelFolder("blip2-t5-half");
  const model = await loadModel(gpu, folder, { dtype: "f16" });
  const stages = await stagesInThread(model, folder);
  const prompt = await promptOf(stages, await readFile(path.join(fixtures, "images", "shapes.png")));
  const all = await rankAnswers(stages, prompt, "what?", answers);
  for (const answer of answers.slice(30, 34)) {
    const [alone] = await rankAnswers(stages, prompt, "what?", [answer]);
    assert.equal(alone?.score, all.find(({ text }) => text === answer)?.score, answer);
  }
  await stages.close();
  model.release();
});
