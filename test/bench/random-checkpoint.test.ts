// The generated checkpoints: of every shape, whole for this system, the same for the same seed, and with true sizes.

import assert from "node:assert/strict";
import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { type RandomCheckpoint, writeRandomCheckpoint } from "../../bench/random-checkpoint.ts";
import { quickForm, type ShapeName, trueShapes } from "../../bench/true-shapes.ts";
import { checkModel } from "../../src/models/model-card.ts";
import { openTokenizer } from "../../src/text/tokenizer.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { leavesOf, tensorsOf } from "../../src/weights/names/tensor-names.ts";
import { readValues } from "../../src/weights/safetensors.ts";
import { temporaryFolder } from "../weights/checkpoint-files.ts";

const folder = await temporaryFolder();
const shapes = Object.keys(trueShapes) as ShapeName[];

async function configOf(checkpoint: RandomCheckpoint) {
  return checkpoint.config(JSON.parse(await readFile(path.join(checkpoint.like, "config.json"), "utf8")));
}

// Totals as in test/weights/names.test.ts, which has them from transformers.
const totals: Readonly<Record<ShapeName, number>> = {
  "blip2-opt-2.7b": 3_744_761_856,
  "blip2-opt-6.7b": 7_752_869_376,
  "blip2-flan-t5-xl": 3_942_446_592,
  "instructblip-vicuna-7b": 7_913_726_720,
  "instructblip-flan-t5-xl": 4_022_969_088,
  "visualglm-6b": 7_802_193_408,
};

for (const name of shapes) {
  test(`${name}: ${totals[name]} parameters; its quick form is a whole checkpoint in shards`, async () => {
    const checkpoint = trueShapes[name];
    const tensors = tensorsOf(checkpoint.names({ ...(await configOf(checkpoint)) }));
    const count = tensors.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
    assert.equal(count, totals[name]);

    const written = await writeRandomCheckpoint(path.join(folder, name), quickForm(checkpoint));
    const opened = await openCheckpoint(written);
    assert.ok(opened.weightFiles.length > 2, "an index and several shards");
    await checkModel(opened, "f16");
    const tokenizer = await openTokenizer(written);
    const [first, other] = [tokenizer.detokenize([1000]), tokenizer.detokenize([1001])];
    assert.match(first, /^[a-z]{6,}$/);
    assert.notEqual(first, other, "ids behind the fixture's own are words of their own");
  });
}

test("equal seeds give equal files whatever the shards, another seed others; values are small and many", async () => {
  const quick = quickForm(trueShapes["blip2-opt-2.7b"]);
  const write = (name: string, weights: Partial<RandomCheckpoint["weights"]>) =>
    writeRandomCheckpoint(path.join(folder, name), { ...quick, weights: { ...quick.weights, ...weights } });
  const [one, again, other, finer] = [
    await write("one", {}),
    await write("again", {}),
    await write("other", { seed: 2 }),
    await write("finer", { shardBytes: 1e6 }),
  ];
  const names = await readdir(one);
  assert.deepEqual(await readdir(again), names);
  for (const file of names) {
    assert.deepEqual(await readFile(path.join(again, file)), await readFile(path.join(one, file)), file);
  }
  const shard = "model-00001-of-00003.safetensors";
  assert.ok((await stat(path.join(one, shard))).size > 1e6);
  assert.notDeepEqual(await readFile(path.join(other, shard)), await readFile(path.join(one, shard)));

  const [plain, fine] = [await openCheckpoint(one), await openCheckpoint(finer)];
  assert.ok(fine.weightFiles.length > plain.weightFiles.length);
  const key = "vision_model.encoder.layers.1.mlp.fc1.weight";
  const [values, same] = await Promise.all(
    [plain, fine].map(async ({ tensors }) => readValues(tensors.get(key) as Parameters<typeof readValues>[0])),
  );
  assert.ok(values && same);
  assert.deepEqual(same, values);
  const leaf = leavesOf(quick.names({ ...(await configOf(quick)) })).find(
    (each) => each.kind === "linear" && each.weight.name === key,
  );
  assert.ok(leaf?.kind === "linear");
  const square = values.reduce((sum, value) => sum + value * value, 0) / values.length;
  assert.ok(Math.abs(square * leaf.inputs - 1) < 0.05, `mean square ${square} of ${leaf.inputs} inputs`);
  assert.ok(new Set(values).size > 2000, "many different values");
});
