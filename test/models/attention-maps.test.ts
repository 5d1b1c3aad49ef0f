// Where models look, against transformers' cross-attention.

import assert from "node:assert/strict";
import path from "node:path";
import { after, test } from "node:test";
import { attentionMaps } from "../../src/answer.ts";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { fixtures, readJson } from "../fixture-files.ts";
import { expectClose } from "../kernels/harness.ts";
import { blipFolder } from "./blip-parity.ts";
import { modelFolder, pixelsOf } from "./parity.ts";
import { stagesInThread } from "./stages-in-thread.ts";

/** test/fixtures/attention.json; see make-attention.py. */
interface Expected {
  readonly models: Readonly<
    Record<
      string,
      readonly {
        readonly image: string;
        /** Where the Q-Former reads one, of these ids. */
        readonly instruction?: string;
        readonly ids: readonly number[];
        readonly weights: readonly (readonly number[])[];
      }[]
    >
  >;
}

const gpu: Gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());
const { models } = await readJson<Expected>("attention.json");

function folderOf(name: string): string {
  if (name.startsWith("instructblip-")) return path.join(fixtures, "instructblip", name);
  return name.startsWith("blip-") ? blipFolder(name) : modelFolder(name);
}

for (const [name, cases] of Object.entries(models)) {
  test(`${name}: the weights of the last cross-attention, mean over heads`, async () => {
    const isBlip = name.startsWith("blip-");
    const folder = folderOf(name);
    const model = await loadModel(gpu, folder, { dtype: "f32" });
    assert.equal(model.card.lookers, isBlip ? "ids" : "queries");
    const stages = await stagesInThread(model, folder);
    await Promise.all(
      cases.map(async ({ image, instruction, ids, weights }) => {
        const features = await stages.encode(await pixelsOf(image, model.card.image));
        if (instruction !== undefined) assert.deepEqual(await stages.tokenizeInstruction(instruction), ids);
        // What was answered does not matter to queries.
        const maps = isBlip
          ? await stages.attention(features, ids)
          : await attentionMaps(stages, features, instruction ?? "what?", [1]);
        const [lookers, tokens] = maps.shape;
        assert.equal(tokens, model.card.features[0]);
        // Behind a text there may be padding.
        assert.ok(isBlip ? lookers >= weights.length : lookers === weights.length);
        const got = maps.weights.subarray(0, weights.length * tokens);
        expectClose(got, weights.flat(), { absolute: 1e-5, relative: 0, reason: "a few layers of f32 sums" });
      }),
    );
    if (isBlip || model.card.instruction) {
      const features = await stages.encode(await pixelsOf("shapes.png", model.card.image));
      await assert.rejects(async () => stages.attention(features, []), /expected at least one token, got none/);
    }
    await stages.close();
    model.release();
  });
}

test("a model that answers questions has no decoder that looks at the image", async () => {
  const model = await loadModel(gpu, blipFolder("blip-vqa-tiny"), { dtype: "f32" });
  assert.equal(model.card.lookers, undefined);
  assert.ok(!("attention" in model.programs));
  model.release();
});
