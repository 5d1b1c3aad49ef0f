// The demo model on the example images against transformers, id by id: the tests of one type.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import { toPixels } from "../../src/image/pixels.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { type Dtype, defaultGeneration } from "../../src/stages.ts";
import { openTokenizer } from "../../src/text/tokenizer.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { checkpointDigest } from "../../src/weights/digest.ts";
import { readJson } from "../fixture-files.ts";

/** See training/record_examples.py. */
interface Recorded {
  readonly model_digest: string;
  readonly max_new_tokens: number;
  readonly examples: readonly {
    readonly image: string;
    readonly pixels_sha256: string;
    readonly token_ids: readonly number[];
    readonly text: string;
    /** Left out where the answer hangs on a rounding. */
    readonly f16?: { readonly token_ids: readonly number[] };
  }[];
}

const folder = path.join(packageRoot, "models", "blip2-opt-demo");
const recorded = await readJson<Recorded>("demo-examples.json");

export async function demoExampleTests(dtype: Dtype): Promise<void> {
  const gpu = await openGpu({ nap: true });
  process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
  after(() => gpu.close());

  test("the recorded ids are this checkpoint's, of all examples", async () => {
    assert.equal(await checkpointDigest(await openCheckpoint(folder)), recorded.model_digest);
    const captions = await readFile(path.join(packageRoot, "examples", "captions.jsonl"), "utf8");
    const images = captions.trimEnd().split("\n");
    assert.deepEqual(
      recorded.examples.map(({ image }) => image),
      images.map((line) => path.basename(JSON.parse(line).image)),
    );
    assert.equal(images.length, 24);
  });

  test(`the caption of every example in ${dtype}`, async () => {
    const wanted = recorded.examples.flatMap((example) => {
      const ids = dtype === "f16" ? example.f16?.token_ids : example.token_ids;
      return ids === undefined ? [] : [{ ...example, ids }];
    });
    assert.ok(wanted.length >= (dtype === "f16" ? 20 : 24), `${wanted.length} examples`);
    const said = await captions(
      gpu,
      dtype,
      wanted.map(({ image }) => image),
    );
    for (const [i, { image, ids, text, pixels_sha256 }] of wanted.entries()) {
      assert.equal(said[i]?.pixels, pixels_sha256, `${image}: pixels`);
      assert.deepEqual(said[i]?.ids, ids, image);
      if (dtype === "f32") assert.equal(said[i]?.text, text, image);
    }
  });
}

/** All through the scheduler at once, so that they share batches. */
async function captions(gpu: Gpu, dtype: Dtype, images: readonly string[]) {
  const { card, programs, release } = await loadModel(gpu, folder, { dtype });
  const { encodeAndQuery, generate } = programs;
  assert.ok(encodeAndQuery && generate);
  const { tokenize, detokenize } = await openTokenizer(folder);
  const scheduler = new RowScheduler();
  const generation = { ...defaultGeneration, maxNewTokens: recorded.max_new_tokens };
  const said = await Promise.all(
    images.map(async (image) => {
      const file = await readFile(path.join(packageRoot, "examples", "images", image));
      const pixels = await toPixels(file, card.image);
      const prompt = await scheduler.run(encodeAndQuery, pixels);
      const ids = await scheduler.run(generate, { prompt, textIds: tokenize(null), generation });
      const { buffer, byteOffset, byteLength } = pixels.data;
      const hash = createHash("sha256").update(new Uint8Array(buffer, byteOffset, byteLength));
      return { pixels: hash.digest("hex"), ids, text: detokenize(ids) };
    }),
  );
  await scheduler.close("drain");
  release();
  return said;
}
