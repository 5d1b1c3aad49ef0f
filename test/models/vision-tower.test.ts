// BLIP-2 with CLIP's ViT-L: a checkpoint that scripts/convert-lavis.py made, against LAVIS' formulas; see make-lavis.py.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import { toPixels } from "../../src/image/pixels.ts";
import { cosineOf } from "../../src/matching.ts";
import { blip2Config } from "../../src/models/blip-2-config.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { checkModel } from "../../src/models/model-card.ts";
import { openTokenizer } from "../../src/text/tokenizer.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { visionNames } from "../../src/weights/names/blip-2-opt.ts";
import { tensorsOf } from "../../src/weights/names/tensor-names.ts";
import { fixtures, readJson } from "../fixture-files.ts";
import { expectNear, readTensors } from "./parity.ts";

const name = "retrieval/blip2-itm-vit-l";
const folder = path.join(fixtures, name);

interface Expected {
  readonly cases: readonly {
    readonly image: string;
    readonly text: string;
    readonly ids: readonly number[];
    readonly itm_logits: readonly [number, number];
    readonly itc: number;
  }[];
}

const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());
const { cases } = await readJson<Expected>(`${name}/expected.json`);
const tensors = await readTensors(path.join(folder, "tensors.safetensors"));

/** f32: sums in another order; GELU for quick GELU moves features by 5e-3. f16: inputs fall on the other side of a rounding. */
for (const [dtype, tolerance] of [
  ["f32", 1e-5],
  ["f16", 3e-3],
] as const) {
  test(`features, logits and cosines under ${dtype} are LAVIS'`, async () => {
    const model = await loadModel(gpu, folder, { dtype, purpose: "matches" });
    const { encode, queryImage, queryText, queryBoth } = model.programs;
    assert.ok(encode && queryImage && queryText && queryBoth);
    const scheduler = new RowScheduler();
    const tokenizer = await openTokenizer(folder);
    assert.equal(cases.length, 6);
    for (const { image, text, ids, itm_logits, itc } of cases) {
      const bytes = await readFile(path.join(fixtures, "images", image));
      const features = await scheduler.run(encode, await toPixels(bytes, model.card.image));
      if (dtype === "f32") {
        const values = new Float32Array(features.bytes.slice().buffer);
        expectNear(`${image}: features`, values, tensors.get(`features.${image}`) ?? [], tolerance);
      }
      assert.deepEqual(tokenizer.tokenize(text), ids);
      const logits = await scheduler.run(queryBoth, { features, textIds: ids });
      expectNear(`${image}, ${text}: logits`, logits, itm_logits, tolerance);
      const [vectors, vector] = [await scheduler.run(queryImage, features), await scheduler.run(queryText, ids)];
      const gap = Math.abs(cosineOf(vectors, vector) - itc);
      assert.ok(gap <= tolerance, `${image}, ${text}: cosine ${cosineOf(vectors, vector)} for ${itc}`);
    }
    await scheduler.close("drain");
    model.release();
  });
}

test("as LAVIS runs it, and at another size", async () => {
  const checkpoint = await openCheckpoint(folder);
  const lavis = await checkModel(checkpoint, "f32", { purpose: "matches", settings: { behaviour: "lavis" } });
  assert.equal(lavis.card.vision, undefined, "every norm has 1e-5 already");
  const large = await checkModel(checkpoint, "f32", { purpose: "matches", settings: { imageSize: 35 } });
  assert.deepEqual(large.card.features, [26, 14]);
});

test("the real sizes: 23 blocks of CLIP's ViT-L, a norm before them and one behind, no bias of patches", () => {
  const { vision } = blip2Config("m", {
    model_type: "blip-2",
    image_token_index: 50265,
    vision_config: {
      ...{ model_type: "clip_vision_model", hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 23 },
      ...{ num_attention_heads: 16, image_size: 224, patch_size: 14, hidden_act: "quick_gelu", layer_norm_eps: 1e-5 },
    },
  });
  assert.ok("activation" in vision);
  assert.equal(vision.activation, "quick gelu");
  const names = tensorsOf(visionNames({ vision }));
  assert.equal(names.length, 3 + 2 + 23 * 16 + 2);
  const total = names.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
  // class, positions, patches; the norm before; per block two norms, four and two matrices with biases; the norm behind
  const block = 4 * 1024 + 4 * (1024 * 1024 + 1024) + 2 * 1024 * 4096 + 4096 + 1024;
  assert.equal(total, 1024 + 257 * 1024 + 1024 * 3 * 14 * 14 + 2048 + 23 * block + 2048);
  assert.ok(!names.some(({ name: key }) => key.endsWith("patch_embedding.bias")));
});
