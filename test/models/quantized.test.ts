// Models of int8 and int4 against the same models of f16 whose checkpoints hold what the whole numbers stand for, computed
// here: every byte that is handed over and every id is the same, because f16 holds these values exactly.

import assert from "node:assert/strict";
import { cp, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { type Activation, type Dtype, defaultGeneration } from "../../src/stages.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { readValues } from "../../src/weights/safetensors.ts";
import { fixtures } from "../fixture-files.ts";
import { roundF16 } from "../kernels/harness.ts";
import { dequantizeReference, quantizeReference } from "../reference/quantize-weight.ts";
import { temporaryFolder, withHeader } from "../weights/checkpoint-files.ts";
import { glmFolder, readGlmExpected, textIdsOf } from "./glm-checkpoint.ts";
import { modelFolder, pixelsOf } from "./parity.ts";

const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());
const folder = await temporaryFolder();

/** Matrices that stay as with f16: whatever looks up or makes ids, ends a stage, or reads more than f16 holds. */
const kept =
  /embed|shared|lm_head|\.wo\.|relative_attention_bias|language_projection|^(text|visual)_projection|glm_proj/;

/** A checkpoint with other values in those of its matrices that are quantized, all f32. */
async function rewritten(
  from: string,
  name: string,
  isQuantized: (tensor: string) => boolean,
  change: (weight: Float32Array, inputs: number, columns: number) => ArrayLike<number>,
): Promise<string> {
  const to = path.join(folder, name);
  await cp(from, to, { recursive: true, filter: (file) => !/\.safetensors(\.index\.json)?$/.test(file) });
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  let end = 0;
  let changed = 0;
  for (const [key, stored] of (await openCheckpoint(from)).tensors) {
    const values = await readValues(stored);
    const [columns = 0, inputs = 0] = stored.shape;
    if (stored.shape.length === 2 && isQuantized(key)) {
      changed++;
      const weight = Float32Array.from(values, (_, i) => values[(i % columns) * inputs + Math.floor(i / columns)] ?? 0);
      const made = change(weight, inputs, columns);
      for (let i = 0; i < values.length; i++) values[(i % columns) * inputs + Math.floor(i / columns)] = made[i] ?? 0;
      assert.deepEqual(values.map(roundF16), values, `${key} is exact in f16`);
    }
    header[key] = { dtype: "F32", shape: stored.shape, data_offsets: [end, end + 4 * values.length] };
    end += 4 * values.length;
    parts.push(Buffer.from(values.buffer, values.byteOffset, values.byteLength));
  }
  assert.ok(changed > 10, `${changed} matrices of ${from}`);
  await writeFile(path.join(to, "model.safetensors"), Buffer.concat([withHeader(JSON.stringify(header), 0), ...parts]));
  return to;
}

/** Whole numbers of 8 bits times powers of two, each group with a -128 at its first input: int8 holds them as they are. */
function onGrid(weight: Float32Array, inputs: number, columns: number): Float32Array {
  const unit = new Float32Array(columns * Math.ceil(inputs / 32));
  for (const [i, value] of weight.entries()) {
    const group = Math.floor(i / columns / 32) * columns + (i % columns);
    unit[group] = Math.max(unit[group] ?? 0, 2 ** Math.ceil(Math.log2(Math.abs(value) || 2 ** -20)) / 128);
  }
  return weight.map((value, i) => {
    const k = Math.floor(i / columns);
    const size = unit[Math.floor(k / 32) * columns + (i % columns)] ?? Number.NaN;
    return size * (k % 32 === 0 ? -128 : Math.max(-127, Math.min(127, Math.round(value / size))));
  });
}

/** Prompts, and ids read greedily and with beams. */
async function everything(model: string, dtype: Dtype, textIds: readonly number[]) {
  const { card, programs, release } = await loadModel(gpu, model, { dtype });
  const { encodeAndQuery, generate } = programs;
  assert.ok(encodeAndQuery && generate);
  const scheduler = new RowScheduler();
  const made: unknown[] = [];
  for (const image of ["shapes.png", "noise.png"]) {
    const prompt: Activation = await scheduler.run(encodeAndQuery, await pixelsOf(image, card.image));
    assert.equal(prompt.type, "f16");
    made.push(Buffer.from(prompt.bytes).toString("hex"));
    for (const numBeams of [1, 3]) {
      const generation = { ...defaultGeneration, numBeams, maxNewTokens: 12, minNewTokens: 6 };
      made.push(await scheduler.run(generate, { prompt, textIds, generation }));
    }
  }
  await scheduler.close("drain");
  release();
  return made;
}

const [glmCase] = (await readGlmExpected()).cases;
assert.ok(glmCase);
const models = [
  {
    name: "OPT",
    from: modelFolder("blip2-opt-tiny"),
    textIds: [2, 68, 7, 20, 11],
    isQuantized: (key: string) => !kept.test(key),
  },
  { name: "T5", from: modelFolder("blip2-t5-tiny"), textIds: [5, 9, 1], isQuantized: (key: string) => !kept.test(key) },
  {
    name: "VisualGLM, its language model only",
    from: glmFolder,
    textIds: textIdsOf(glmCase.input_ids, 5),
    isQuantized: (key: string) => !kept.test(key) && !key.startsWith("image_encoder"),
  },
] as const;

for (const { name, from, textIds, isQuantized } of models) {
  test(`int4, ${name}: as f16 of what the whole numbers stand for`, async () => {
    const exact = await rewritten(from, `${name} int4`, isQuantized, (weight, inputs, columns) =>
      dequantizeReference(quantizeReference(weight, inputs, columns, 4)),
    );
    const wanted = await everything(exact, "f16", textIds);
    assert.deepEqual(await everything(from, "int4", textIds), wanted);
    assert.notDeepEqual(await everything(from, "f16", textIds), wanted, "quantization changes something");
  });

  test(`int8, ${name}: as f16 where whole numbers of 8 bits hold all`, async () => {
    const exact = await rewritten(from, `${name} int8`, isQuantized, onGrid);
    assert.deepEqual(await everything(exact, "int8", textIds), await everything(exact, "f16", textIds));
  });
}

test("CLIP: vectors under int4 are those of f16 with the same values", async () => {
  const from = path.join(fixtures, "clip", "clip-tiny");
  const isQuantized = (key: string) => !kept.test(key);
  const exact = await rewritten(from, "clip int4", isQuantized, (weight, inputs, columns) =>
    dequantizeReference(quantizeReference(weight, inputs, columns, 4)),
  );
  const vectors: string[] = [];
  for (const [model, dtype] of [
    [from, "int4"],
    [exact, "f16"],
  ] as const) {
    const { card, programs, release } = await loadModel(gpu, model, { dtype, purpose: "labels" });
    const { encode, queryImage, queryText } = programs;
    assert.ok(encode && queryImage && queryText);
    const scheduler = new RowScheduler();
    const features = await scheduler.run(encode, await pixelsOf("shapes.png", card.image));
    const image = await scheduler.run(queryImage, features);
    const text = await scheduler.run(queryText, [574, 3, 9, 575]);
    vectors.push([image, text].map(({ bytes }) => Buffer.from(bytes).toString("hex")).join(" "));
    await scheduler.close("drain");
    release();
  }
  assert.equal(vectors[0], vectors[1]);
});
