// CapFilt's decisions on stages that only say what they are told: what is kept, what is dropped, and why.

import assert from "node:assert/strict";
import { test } from "node:test";
import { filterTexts, judgeTexts } from "../src/filtering.ts";
import { score } from "../src/matching.ts";
import { TextError } from "../src/models/errors.ts";
import { defaultGeneration, type RetrievalStages } from "../src/stages.ts";
import { fakeComparing } from "./workers/fake-comparing.ts";
import { fakeStages } from "./workers/fake-stages.ts";

/** A matcher that gives each text the matching probability that it is told. */
function matcher(probabilities: Readonly<Record<string, number>>): RetrievalStages {
  const stages = fakeComparing();
  return {
    ...stages,
    async queryText() {
      return { type: "f32", shape: [1, 4], bytes: new Uint8Array(Float32Array.of(1, 0, 0, 0).buffer) };
    },
    async queryBoth(_, ids) {
      const p = probabilities[Buffer.from(Uint8Array.from(ids)).toString("utf8")];
      if (p === undefined) throw new TextError("text: expected at most 16 tokens, got 17");
      return [0, Math.log(p / (1 - p))];
    },
  };
}

async function judged(probabilities: Readonly<Record<string, number>>, web: readonly string[], synthetic: string) {
  const stages = matcher(probabilities);
  const features = await stages.encode(await stages.toPixels(Buffer.from("image")));
  const image = { features, vectors: await stages.queryImage(features) };
  return judgeTexts(stages, image, { web, synthetic }, 0.5);
}

test("from the threshold on a text is kept, web and synthetic alike; the reason names both figures", async () => {
  const decisions = await judged({ a: 0.75, b: 0.25, c: 0.5 }, ["a", "b"], "c");
  assert.deepEqual(
    decisions.map(({ text, source, itm, kept, reason }) => [text, source, itm, kept, reason]),
    [
      ["a", "web", 0.75, true, "itm 0.75 is at least 0.5"],
      ["b", "web", 0.25, false, "itm 0.25 is below 0.5"],
      ["c", "synthetic", 0.5, true, "itm 0.5 is at least 0.5"],
    ],
  );
  assert.ok(decisions.every(({ itc }) => itc !== null && Math.abs(itc) <= 1));
});

test("a text that was kept is not kept twice, whatever its case and spaces; one that was dropped takes none with it", async () => {
  const decisions = await judged(
    { "a dog": 0.9, "A  Dog": 0.8, "a cat": 0.4, "A cat": 0.6 },
    ["a dog", "a cat"],
    "A  Dog",
  );
  assert.deepEqual(
    decisions.map(({ kept, reason }) => [kept, reason]),
    [
      [true, "itm 0.9 is at least 0.5"],
      [false, "itm 0.4 is below 0.5"],
      [false, "the same as the web text before it"],
    ],
  );
  const [, second] = await judged({ "a cat": 0.4, "A cat": 0.6 }, ["a cat"], "A cat");
  assert.equal(second?.kept, true);
});

test("a text that is empty or cannot be read is a decision against it, without scores", async () => {
  const decisions = await judged({ a: 0.9 }, [" ", "too long"], "a");
  assert.deepEqual(decisions.slice(0, 2), [
    { text: " ", source: "web", itm: null, itc: null, kept: false, reason: "the text is empty" },
    {
      ...{ text: "too long", source: "web", itm: null, itc: null, kept: false },
      reason: "TextError: text: expected at most 16 tokens, got 17",
    },
  ]);
  assert.equal(decisions[2]?.kept, true);
});

test("the whole: the captioner is asked with prompt, settings and the image's digest; no web text is no mistake", async () => {
  const captioner = fakeStages();
  const generation = { ...defaultGeneration, doSample: true, topP: 0.9, seed: 3 };
  const settings = { prompt: "a picture of", generation, threshold: 0 };
  const [only, ...others] = await filterTexts(captioner, fakeComparing(), Buffer.from("image 1"), [], settings);
  assert.deepEqual(others, []);
  assert.deepEqual([only?.source, only?.kept], ["synthetic", true]);
  assert.equal(only?.itm, score(only?.itm ?? Number.NaN));
  assert.deepEqual(captioner.texts[0]?.generation, generation);
  assert.match(captioner.texts[0]?.image ?? "", /^[0-9a-f]{64}$/);
  await assert.rejects(filterTexts(captioner, fakeComparing(), Buffer.from("not an image"), ["a"], settings), {
    name: "ImageError",
  });
});

test("what is no text's fault is nobody's decision", async () => {
  const lost = Object.assign(new Error("gone"), { name: "DeviceLostError" });
  const stages = fakeComparing(async (stage) => {
    if (stage === "queryBoth") throw lost;
  });
  const settings = { prompt: null, generation: defaultGeneration, threshold: 0.5 };
  await assert.rejects(filterTexts(fakeStages(), stages, Buffer.from("image"), ["a"], settings), lost);
});
