// Several frames: their prompts one after another, against transformers' video class and language models.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, test } from "node:test";
import { answerFrom, type Frame, promptOfVideo, promptsOfFrames, rankAnswers } from "../../src/answer.ts";
import { framesTaken } from "../../src/cli/frames-option.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { defaultGeneration } from "../../src/stages.ts";
import { modelText } from "../../src/workers/activities/model-text.ts";
import { fixtures, readJson } from "../fixture-files.ts";
import { openTestGpu } from "../gpu/open-test-gpu.ts";
import { stagesInThread } from "./stages-in-thread.ts";

/** test/fixtures/video.json; see make-video.py. */
interface Expected {
  /** The frames of the source "folder". */
  readonly pictures: readonly string[];
  readonly models: Readonly<
    Record<
      string,
      readonly {
        /** "folder", or a file of animations/. */
        readonly source: string;
        readonly frames: number;
        readonly kind: "caption" | "ask";
        readonly words: string;
        readonly token_ids: readonly number[];
        readonly text: string;
      }[]
    >
  >;
}

const gpu: Gpu = await openTestGpu();
after(() => gpu.close());
const { pictures, models } = await readJson<Expected>("video.json");

async function framesOf(source: string, count: number): Promise<Frame[]> {
  if (source !== "folder") {
    const image = await readFile(path.join(fixtures, "animations", source));
    return framesTaken(4, count).map((frame) => ({ image, frame }));
  }
  const taken = framesTaken(pictures.length, count).map((at) => path.join(fixtures, "images", pictures[at] ?? ""));
  return Promise.all(taken.map(async (file) => ({ image: await readFile(file), frame: 0 })));
}

async function opened(name: string) {
  const folder = path.join(fixtures, name.startsWith("instructblip") ? "instructblip" : "models", name);
  const model = await loadModel(gpu, folder, { dtype: "f32" });
  const stages = await stagesInThread(model, folder);
  const close = async () => {
    await stages.close();
    model.release();
  };
  return { stages, close };
}

for (const [name, cases] of Object.entries(models)) {
  test(`${name}: the ids of every video, all at once`, async () => {
    assert.ok(cases.length >= 6);
    const { stages, close } = await opened(name);
    await Promise.all(
      cases.map(async ({ source, frames, kind, words, token_ids, text }) => {
        const asked = modelText(stages.card, kind, words);
        const made = await promptsOfFrames(stages, await framesOf(source, frames));
        const prompt = await promptOfVideo(stages, made, asked);
        const [queries, width] = stages.card.prompt;
        assert.deepEqual(prompt.shape, [frames * queries, width]);
        const said = await answerFrom(stages, prompt, asked, { ...defaultGeneration, maxNewTokens: 8 });
        assert.deepEqual(said, { text, tokenIds: token_ids }, `${source} ${frames} ${words}`);
      }),
    );
    await close();
  });
}

test("given answers about several frames, and a prompt that fits no number of them", async () => {
  const { stages, close } = await opened("blip2-opt-tiny");
  const made = await promptsOfFrames(stages, await framesOf("folder", 3));
  const video = await promptOfVideo(stages, made, "what is it?");
  const ranked = await rankAnswers(stages, video, "what is it?", ["red", "a cat", "two dogs"]);
  const [alone = assert.fail()] = made;
  const one = await rankAnswers(stages, alone, "what is it?", ["red", "a cat", "two dogs"]);
  assert.equal(ranked.length, 3);
  assert.notDeepEqual(ranked, one);
  const [queries, width] = stages.card.prompt;
  const odd = {
    ...video,
    shape: [queries + 1, width] as const,
    bytes: video.bytes.subarray(0, (queries + 1) * width * 4),
  };
  await assert.rejects(
    async () => answerFrom(stages, odd, "what?", { ...defaultGeneration, maxNewTokens: 4 }),
    /expected prompt \(5, 40\), got prompt \(6, 40\)/,
  );
  await close();
});

test("too many frames for the model's positions: both numbers", async () => {
  const { stages, close } = await opened("blip2-opt-tiny");
  const made = await promptsOfFrames(stages, await framesOf("folder", 4));
  const video = await promptOfVideo(stages, [...made, ...made, ...made, ...made], null);
  await assert.rejects(
    async () => answerFrom(stages, video, null, { ...defaultGeneration, maxNewTokens: 4 }),
    /expected at most 64 positions of image slots, text and new ids, got 85 \(80 \+ 1 \+ 4\)/,
  );
  await assert.rejects(promptOfVideo(stages, [], null), /video: expected at least one frame, got none/);
  await close();
});
