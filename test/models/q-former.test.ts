// The Q-Former with text against transformers: queries and text together, queries alone, text alone.

import assert from "node:assert/strict";
import path from "node:path";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { openGpu } from "../../src/gpu/device.ts";
import type { Recorder } from "../../src/gpu/recorder.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import { WeightLoader } from "../../src/models/load.ts";
import {
  type QFormerSequence,
  qFormer,
  qFormerBlock,
  queryEmbeddings,
  readImage,
  textEmbeddings,
} from "../../src/models/q-former.ts";
import { expectTensors, openCheckpoint } from "../../src/weights/checkpoint.ts";
import { qFormerWithTextNames } from "../../src/weights/names/blip-2-retrieval.ts";
import { tensorsOf } from "../../src/weights/names/tensor-names.ts";
import { fixtures } from "../fixture-files.ts";
import { expectNear, readTensors } from "./parity.ts";

// As make-q-former.py has them.
const qFormerSizes = {
  width: 42,
  mlpWidth: 49,
  layers: 4,
  imageWidth: 50,
  crossAttentionFrequency: 2,
  normEps: 0.03,
};
const sizes = { batch: 2, heads: 3 };
const inputIds = [7, 52, 3, 0, 19, 7, 1, 2, 44, 44, 30, 5];
/** f32 sums in another order; the feed-forward of the other part gives gaps of 0.1 and more. */
const tolerance = 3e-6;

const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());
const folder = path.join(fixtures, "q-former-text");
const expected = await readTensors(path.join(folder, "tensors.safetensors"));
const checkpoint = await openCheckpoint(folder);
const names = qFormerWithTextNames({
  qFormer: qFormerSizes,
  queries: 5,
  text: { vocabulary: 53, maxPositions: 9 },
});
expectTensors(checkpoint, { required: tensorsOf(names), tied: [] });
const weights = await new WeightLoader(gpu, checkpoint, "f32").load(names);

const features = gpu.alloc("features", [22, 50], "f32");
await gpu.upload(features, new Uint8Array((expected.get("features") ?? new Float32Array()).slice().buffer));
const cursors = gpu.alloc("cursors", [12, 4], "u32");
const words = inputIds.flatMap((id, i) => [id, i % 6, 0, 0]);
await gpu.upload(cursors, new Uint8Array(Uint32Array.from(words).buffer));

/** Run, and hold each tensor that came of it against the fixture. */
async function expectTensorsOf(forward: (k: Recorder) => Readonly<Record<string, Tensor | null>>): Promise<void> {
  const list = await gpu.record("q-former", forward);
  const entries = Object.entries(list.result).filter((entry): entry is [string, Tensor] => entry[1] !== null);
  assert.ok(entries.length > 0);
  const results = await gpu.submit([list], { reads: entries.map(([, tensor]) => tensor) });
  for (const [i, [name]] of entries.entries()) {
    expectNear(name, new Float32Array(results[i] as ArrayBuffer), expected.get(name) ?? [], tolerance);
  }
  list.destroy();
}

test("queries and text: every layer", async () => {
  await expectTensorsOf((k) => {
    let x: QFormerSequence = { queries: queryEmbeddings(k, weights, 2), text: textEmbeddings(k, weights, cursors) };
    const seen: Record<string, Tensor | null> = { "both.0.queries": x.queries, "both.0.text": x.text };
    for (const [i, layer] of weights.layers.entries()) {
      x = qFormerBlock(k, layer, x, features, sizes);
      seen[`both.${i + 1}.queries`] = x.queries;
      seen[`both.${i + 1}.text`] = x.text;
    }
    return seen;
  });
});

test("queries alone", async () => {
  await expectTensorsOf((k) => ({ queries: readImage(k, weights, features, sizes) }));
});

test("text alone: no image, no queries", async () => {
  await expectTensorsOf((k) => ({
    text: qFormer(k, weights, { queries: null, text: textEmbeddings(k, weights, cursors) }, null, sizes).text,
  }));
});

test("what is missing is named", async () => {
  const forward = (sequence: QFormerSequence, image: Tensor | null) =>
    gpu.record("q-former", (k) => qFormer(k, weights, sequence, image, sizes));
  await assert.rejects(forward({ queries: null, text: null }, features), /expected queries or text, got neither/);
  const queries = gpu.alloc("queries", [10, 42], "f32");
  await assert.rejects(forward({ queries, text: null }, null), /expected features for its queries, got none/);
});
