import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { EvaluationError, OtherScenesError } from "../../evaluation/errors.ts";
import { readPlaces, readReference } from "../../evaluation/reference.ts";
import type { SceneSet } from "../../evaluation/scene-sets.ts";

const models = await mkdtemp(join(tmpdir(), "blipfleet-reference-"));
after(() => rm(models, { recursive: true, force: true }));
await mkdir(join(models, "reference"));

const facts = { kinds: { dog: 1 }, colour: "red" };
const question = { kind: "count", question: "how many dogs are there?", answer: "one" };
const set: SceneSet = {
  name: "test-comb",
  digest: "scenes",
  items: [
    { id: "0", image: "0.png", caption: "a dog", facts, questions: [question, question] },
    { id: "1", image: "1.png", caption: "a dog", facts, questions: [] },
  ],
};
const header = { set_digest: "scenes", model_digest: "weights", answers: true };

async function read(stated: unknown, rows: unknown, digest = "weights") {
  const lines = [stated, ...(rows as unknown[])].map((line) => JSON.stringify(line));
  await writeFile(join(models, "reference", "test-comb.jsonl"), lines.join("\n"));
  return readReference(models, set, digest);
}

test("ids of captions and of answers, in the order of the scenes", async () => {
  assert.deepEqual(await read(header, [[[1, 2], [3], [4, 5]], [[6]]]), [
    { caption: [1, 2], answers: [[3], [4, 5]] },
    { caption: [6], answers: [] },
  ]);
  assert.deepEqual(await read({ ...header, answers: false }, [[[1, 2]], [[6]]]), [
    { caption: [1, 2], answers: [] },
    { caption: [6], answers: [] },
  ]);
});

test("ids of another checkpoint, of other scenes, or not of all of them, are refused", async () => {
  await assert.rejects(read(header, [[[1], [2], [3]], [[4]]], "other weights"), (error: unknown) => {
    assert.ok(error instanceof EvaluationError && !(error instanceof OtherScenesError));
    assert.match(
      error.message,
      /expected what the checkpoint other weight answered, got what weights did; .*reference_predictions/,
    );
    return true;
  });
  await assert.rejects(read({ ...header, set_digest: "other scenes" }, [[[1], [2], [3]], [[4]]]), OtherScenesError);
  await assert.rejects(read(header, [[[1], [2], [3]]]), /expected 2 scenes, got 1/);
  await assert.rejects(read(header, [[[1], [2]], [[4]]]), /expected a caption and 2 answers of scene 0, got 1/);
  await rm(join(models, "reference", "test-comb.jsonl"));
  await assert.rejects(readReference(models, set, "weights"), /test-comb\.jsonl: expected .*, got no such file/);
});

test("places of a search in both directions, of this checkpoint and these scenes only", async () => {
  const retrieval: SceneSet = { ...set, name: "retrieval" };
  const stated = {
    set_digest: "scenes",
    model_digest: "weights",
    reranked: 16,
    text_to_image: { itc: [1, 2], itm: [1, 1] },
    image_to_text: { itc: [0, 1], itm: [0, 2] },
  };
  const read = async (more: object, digest = "weights") => {
    await writeFile(join(models, "reference", "retrieval.json"), JSON.stringify({ ...stated, ...more }));
    return readPlaces(models, retrieval, digest);
  };
  assert.deepEqual(await read({}), {
    textToImage: { itc: [1, 2], itm: [1, 1] },
    imageToText: { itc: [0, 1], itm: [0, 2] },
  });
  await assert.rejects(read({}, "other weights"), /record it again with training\/reference_retrieval\.py/);
  await assert.rejects(read({ set_digest: "other scenes" }), OtherScenesError);
  await assert.rejects(read({ reranked: 8 }), /expected 16 re-ranked of each search, got 8/);
});
