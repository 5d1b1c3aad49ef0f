// generate with a memory beside the sequence: what must not change an answer, and what is refused.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { makeDecodeMachine } from "../../src/models/decode-machine.ts";
import { GenerationError } from "../../src/models/errors.ts";
import { checkGenerateRow, type GenerateRow, generateKey, maxGenerateRows } from "../../src/models/generate-row.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { type ActivationType, defaultGeneration, type Generation } from "../../src/stages.ts";
import { packF16 } from "../kernels/harness.ts";
import { loadBlipLanguage } from "./blip-parity.ts";
import { finalBits } from "./final-bits.ts";

const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());

/** The features of a picture that nobody drew. */
function row(
  { prompt: { shape } }: LanguageModel,
  type: ActivationType,
  seed: number,
  textIds: readonly number[],
  generation: Partial<Generation> = {},
): GenerateRow {
  const values = Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => 2 * Math.sin((i + 1) * seed));
  const words = type === "f16" ? packF16(values) : values;
  const bytes = new Uint8Array(words.buffer, 0, values.length * (type === "f16" ? 2 : 4));
  return {
    prompt: { kind: "features", type, shape, bytes },
    textIds,
    generation: { ...defaultGeneration, ...generation },
  };
}

/** Rows that differ in everything that rows of a batch may differ in; texts of 1 to 8 ids. */
function mixedRows(model: LanguageModel, type: ActivationType, numBeams: number): GenerateRow[] {
  return [
    row(model, type, 1.3, [2, 40, 3], { numBeams, maxNewTokens: 16 }),
    row(model, type, 1.3, [2, 40, 41, 52, 3], { numBeams, maxNewTokens: 9, minNewTokens: 6, lengthPenalty: 2 }),
    row(model, type, 2.9, [2, 61, 60, 33, 20, 21, 9, 3], { numBeams, maxNewTokens: 13, repetitionPenalty: 1.4 }),
    row(model, type, 0.7, [7], { numBeams, maxNewTokens: 1 }),
    row(model, type, 4.1, [2, 40, 3], { numBeams, maxNewTokens: 10, lengthPenalty: 0 }),
  ];
}

for (const [name, type, numBeams] of [
  ["blip-vqa-tiny", "f32", 3],
  ["blip-vqa-half", "f16", 1],
  ["blip-caption-half", "f16", 3],
  ["blip-caption-tiny", "f32", 1],
] as const) {
  test(`${name}, ${type}, ${numBeams} beams: bits do not depend on the batch, the buckets or the submits`, async () => {
    const { model, loader } = await loadBlipLanguage(gpu, name, type);
    const rows = mixedRows(model, type, numBeams);
    const make = (items: number, textRows: number, newRows: number, mostOperations?: number) =>
      makeDecodeMachine(
        gpu,
        model,
        items,
        { beams: numBeams, ids: "searched", promptType: type, textRows, newRows },
        mostOperations,
      );
    const single = await make(1, 8, 16);
    const expected: string[] = [];
    for (const each of rows) expected.push(...(await finalBits(gpu, single, [each], 1)));
    assert.equal(new Set(expected).size, rows.length, "rows that differ give different bits");
    const batch = await make(8, 8, 16);
    assert.deepEqual(await finalBits(gpu, batch, rows, 1), expected, "a batch, one step per submit");
    assert.deepEqual(
      await finalBits(gpu, batch, rows.toReversed(), 4),
      expected.toReversed(),
      "another order, over used buffers, four steps",
    );
    const wide = await make(16, 16, 32);
    assert.deepEqual(await finalBits(gpu, wide, rows, 7), expected, "wider buckets, seven steps");
    const parts = await make(8, 8, 16, 1);
    const reading = await parts.load([...rows.entries()]);
    // No logits; and of a question nothing but the memory, for an answer begins with one id, which the first step reads.
    const { encoder, parts: making } = model.memory ?? assert.fail("a memory");
    assert.equal(reading.length, encoder ? making : model.promptParts.length - 1);
    assert.equal(parts.next.length, model.tokenParts.length);
    assert.deepEqual(await finalBits(gpu, parts, rows, 3), expected, "every layer recorded by itself");
    for (const machine of [single, batch, wide, parts]) machine.destroy();
    loader.release();
  });
}

test("what the model cannot serve is refused before anything is queued", async () => {
  const answers = await loadBlipLanguage(gpu, "blip-vqa-tiny", "f32");
  const captions = await loadBlipLanguage(gpu, "blip-caption-tiny", "f32");
  const ids = (count: number) => new Array<number>(count).fill(7);
  const expectRefusal = (model: LanguageModel, given: GenerateRow, message: RegExp) =>
    assert.throws(
      () => checkGenerateRow(model, given),
      (error) => error instanceof GenerationError && message.test(error.message),
      String(message),
    );
  // 37 positions: the question has them to itself, the answer shares them with its first id.
  const asked = (textIds: readonly number[], maxNewTokens = 36) =>
    row(answers.model, "f32", 1, textIds, { maxNewTokens });
  checkGenerateRow(answers.model, asked(ids(37)));
  expectRefusal(answers.model, asked(ids(38)), /^generate: expected at most 37 ids of text, got 38; shorten the text$/);
  expectRefusal(answers.model, asked([]), /at least one id of text, got 0/);
  expectRefusal(
    answers.model,
    asked(ids(3), 37),
    /at most 37 positions .*, got 38 \(0 \+ 1 \+ 37\); lower --max-new-tokens$/,
  );
  // 48 positions: the prompt and its caption share them.
  const told = (textIds: readonly number[], maxNewTokens = 20) =>
    row(captions.model, "f32", 1, textIds, { maxNewTokens });
  checkGenerateRow(captions.model, told(ids(28)));
  expectRefusal(
    captions.model,
    told(ids(29)),
    /got 49 \(0 \+ 29 \+ 20\); lower --max-new-tokens or shorten the prompt$/,
  );
  const { prompt } = told(ids(3));
  expectRefusal(
    captions.model,
    { ...told(ids(3)), prompt: { ...prompt, kind: "prompt" } },
    /features \(10, 30\), got prompt/,
  );
  expectRefusal(captions.model, { ...told(ids(3)), prompt: { ...prompt, shape: [9, 30] } }, /got features \(9, 30\)/);
  answers.loader.release();
  captions.loader.release();
});

test("rows of a batch are bounded by what fits a binding, the memory too", async () => {
  const { model, loader } = await loadBlipLanguage(gpu, "blip-caption-tiny", "f32");
  const key = generateKey(row(model, "f32", 1, [7]));
  const rows = (bindingLimit: number) => maxGenerateRows({ bindingLimit, softwareAdapter: false }, model, key);
  // The cache of one item, 26 wide in f32: 32 rows of the prompt and 32 new ones, more than the 10 of the memory.
  const cache = (32 + 32) * 26 * 4;
  assert.equal(rows(2 ** 27), 16);
  assert.equal(rows(cache * 4), 4);
  assert.equal(rows(cache * 4 - 1), 2);
  // A memory of a thousand rows decides, by the feed-forward of an encoder that may have made it, 33 wide.
  const large: LanguageModel = { ...model, memory: { rows: () => 1000, parts: 3 } };
  const most = (bindingLimit: number) => maxGenerateRows({ bindingLimit, softwareAdapter: false }, large, key);
  assert.equal(most(1000 * 33 * 4 * 2), 2);
  assert.equal(most(1000 * 33 * 4 * 2 - 1), 1);
  loader.release();
});
