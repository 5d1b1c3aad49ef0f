// The Q-Former says what it misses. What it computes is held against transformers in blip-2-parity and retrieval-parity.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { blip2RetrievalConfig } from "../../src/models/blip-2-config.ts";
import { WeightLoader } from "../../src/models/load.ts";
import { type QFormerSequence, type QFormerWeights, qFormerBlock, textEmbeddings } from "../../src/models/q-former.ts";
import { openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { qFormerNames } from "../../src/weights/names/blip-2-opt.ts";
import { qFormerWithTextNames } from "../../src/weights/names/blip-2-retrieval.ts";
import { retrievalFolder } from "./retrieval-parity.ts";

const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());
const checkpoint = await openCheckpoint(retrievalFolder("blip2-itm-tiny"));
const config = blip2RetrievalConfig("blip2-itm-tiny", (await readSettings(checkpoint, "config.json")) ?? {});
const { width, heads } = config.qFormer;
const loader = new WeightLoader(gpu, checkpoint, "f32");
const reading: QFormerWeights = await loader.load(qFormerWithTextNames(config));
const writing: QFormerWeights = await loader.load(qFormerNames(config));
const queries = gpu.alloc("queries", [2 * config.queries, width], "f32");
const text = gpu.alloc("text", [2 * 3, width], "f32");

function firstLayer(weights: QFormerWeights, sequence: QFormerSequence): Promise<unknown> {
  const [layer = assert.fail("a layer")] = weights.layers;
  return gpu.record("q-former", (k) => qFormerBlock(k, layer, sequence, null, { batch: 2, heads }));
}

test("what is missing is named", async () => {
  const nothing = firstLayer(reading, { queries: null, text: null });
  await assert.rejects(nothing, /expected queries or text, got neither/);
  const blind = firstLayer(reading, { queries, text });
  await assert.rejects(blind, /expected features for its queries, got none/);
  const illiterate = firstLayer(writing, { queries: null, text });
  await assert.rejects(illiterate, /expected weights that read text, got none/);
  const cursors = gpu.alloc("cursors", [6, 4], "u32");
  const words = gpu.record("q-former", (k) => textEmbeddings(k, writing, cursors));
  await assert.rejects(words, /expected weights that read text, got none/);
});
