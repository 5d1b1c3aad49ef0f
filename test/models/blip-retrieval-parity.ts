// The parity tests of one BLIP fixture that compares images with texts.

import assert from "node:assert/strict";
import type { Gpu } from "../../src/gpu/device.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import { blipConfig } from "../../src/models/blip-config.ts";
import { blipEncoderBlock, blipTextEmbeddings } from "../../src/models/blip-text.ts";
import { WeightLoader } from "../../src/models/load.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { blipEncoderNames } from "../../src/weights/names/blip.ts";
import { blipFolder } from "./blip-parity.ts";
import { type ExpectedMatches, matchParityTests, pixelsOf, run } from "./retrieval-parity.ts";

/**
 * f16 steps of the whole pass end up in the logits: seen up to 3.6e-3, where transformers against itself, its inputs moved by
 * 2e-6, differs by 5.2e-3.
 */
const halfLogits = 6e-3;

export function blipRetrievalParityTests(name: string): Promise<void> {
  return matchParityTests(blipFolder(name), textLayersOf, halfLogits);
}

/** The text after every layer, each of which reads the image. */
async function textLayersOf(
  gpu: Gpu,
  folder: string,
  { layers_of, texts }: ExpectedMatches,
): Promise<Map<string, Float32Array>> {
  const model = await loadModel(gpu, folder, { dtype: "f32", purpose: "matches", stages: ["encode"] });
  const scheduler = new RowScheduler();
  const features = await run(scheduler, model, "encode", await pixelsOf(model, layers_of.image));
  const checkpoint = await openCheckpoint(folder);
  const { text } = blipConfig(folder, (await readSettings(checkpoint, "config.json")) ?? {});
  const loader = new WeightLoader(gpu, checkpoint, "f32");
  const weights = await loader.load(blipEncoderNames({ text }));
  const ids = texts[layers_of.text]?.ids ?? assert.fail("the text of the layers");
  const image = gpu.alloc("features", features.shape, "f32");
  await gpu.upload(image, features.bytes);
  const cursors = gpu.alloc("cursors", [ids.length, 4], "u32");
  await gpu.upload(cursors, new Uint8Array(Uint32Array.from(ids.flatMap((id, i) => [id, i, 0, 0])).buffer));
  const lengths = gpu.alloc("lengths", [1], "u32");
  await gpu.upload(lengths, new Uint8Array(Uint32Array.of(ids.length).buffer));
  const list = await gpu.record("layers", (k) => {
    let x = blipTextEmbeddings(k, weights.words, weights, cursors);
    const seen = [x];
    for (const layer of weights.layers) {
      x = blipEncoderBlock(k, layer, x, image, { batch: 1, heads: text.heads, lengths });
      seen.push(x);
    }
    return seen;
  });
  const results = await gpu.submit([list], { reads: list.result });
  const found = new Map([["features", new Float32Array(features.bytes.slice().buffer)]]);
  for (const [i, words] of results.entries()) {
    found.set(i === 0 ? "encoder.embeddings" : `encoder.layer.${i - 1}`, new Float32Array(words));
  }
  list.destroy();
  loader.release();
  model.release();
  await scheduler.close("drain");
  return found;
}
