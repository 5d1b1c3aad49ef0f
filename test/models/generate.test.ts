// generate against transformers' ids, and what must not change them: the batch, the submit, the split of the head.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import { RecordingCache } from "../../src/gpu/recording-cache.ts";
import type { RowProgram } from "../../src/gpu/row-program.ts";
import { type DecodeMachine, makeDecodeMachine } from "../../src/models/decode-machine.ts";
import { GenerationError } from "../../src/models/errors.ts";
import { generateProgram, startGenerate, stepsWithin } from "../../src/models/generate.ts";
import {
  bucketsOf,
  checkGenerateRow,
  type GenerateRow,
  generateKey,
  maxGenerateRows,
} from "../../src/models/generate-row.ts";
import { defaultGeneration, type Generation } from "../../src/stages.ts";
import { finalBits } from "./final-bits.ts";
import { generationOf, loadTinyOpt, type TinyOpt, tinyModels } from "./tiny-opt.ts";

const gpu: Gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
/** The same adapter with the kernels of the other family. */
const otherFamily: Gpu = await openGpu({ nap: true, softwareAdapter: !gpu.softwareAdapter });
after(() => {
  gpu.close();
  otherFamily.close();
});

/** All rows, in batches of rows with equal keys, as a scheduler would. */
async function generateAll(
  program: RowProgram<GenerateRow, number[]>,
  rows: readonly GenerateRow[],
  mostRows = Number.POSITIVE_INFINITY,
): Promise<(number[] | Error)[]> {
  const results: (number[] | Error)[] = [];
  const byKey = new Map<string, number[]>();
  for (const [i, row] of rows.entries()) byKey.set(program.key(row), [...(byKey.get(program.key(row)) ?? []), i]);
  for (const [key, members] of byKey) {
    const size = Math.min(program.maxRows(key), mostRows);
    for (let from = 0; from < members.length; from += size) {
      const part = members.slice(from, from + size);
      const batch = program.start(part.map((i) => rows[i] as GenerateRow));
      let left = part.length;
      while (left > 0) {
        for (const result of await batch.step(new Set())) {
          results[part[result.row] ?? -1] = "value" in result ? result.value : result.error;
          left--;
        }
      }
      batch.release();
    }
  }
  return results;
}

for (const { name, cases } of tinyModels) {
  // The kernels of GPUs are slow on CPU drivers; one model is enough for them.
  for (const device of name === "two-ends" ? [gpu, otherFamily] : [gpu]) {
    const family = device.softwareAdapter ? "CPU variant" : "GPU variant";
    test(`${name}: ${cases.length} answers of transformers, ${family}`, async () => {
      const tiny = await loadTinyOpt(device, name);
      const program = generateProgram(device, tiny.model);
      const rows = cases.map((each) => tiny.row(each.prompt, generationOf(each)));
      const answers = await generateAll(program, rows);
      program.close();
      const wrong = cases.filter((each, i) => JSON.stringify(answers[i]) !== JSON.stringify(each.token_ids));
      for (const each of wrong.slice(0, 8)) {
        process.stderr.write(`${JSON.stringify(each)}\n  got ${JSON.stringify(answers[cases.indexOf(each)])}\n`);
      }
      assert.equal(wrong.length, 0, `${wrong.length} of ${cases.length} answers differ`);
    });
  }
}

/** Rows that differ in everything that rows of a batch may differ in. */
function mixedRows(tiny: TinyOpt, numBeams: number): GenerateRow[] {
  return [
    tiny.row(0, { ...defaultGeneration, numBeams, maxNewTokens: 16 }),
    tiny.row(1, { ...defaultGeneration, numBeams, maxNewTokens: 9, minNewTokens: 6, lengthPenalty: 2 }),
    tiny.row(3, { ...defaultGeneration, numBeams, maxNewTokens: 13, repetitionPenalty: 1.4, lengthPenalty: -1 }),
    tiny.row(0, { ...defaultGeneration, numBeams, maxNewTokens: 1 }),
    tiny.row(3, { ...defaultGeneration, numBeams, maxNewTokens: 10, lengthPenalty: 0 }),
    // As many ids as the bucket holds: no padding between the prompt and what is generated.
    { ...tiny.row(1, { ...defaultGeneration, numBeams, maxNewTokens: 12 }), textIds: [2, 11, 30, 4] },
  ];
}

for (const [name, type] of [
  ["one-end", "f32"],
  ["two-ends", "f16"],
] as const) {
  for (const numBeams of [1, 3]) {
    test(`${name}, ${type}, ${numBeams} beams: bits do not depend on the batch, the buckets or the submits`, async () => {
      const tiny = await loadTinyOpt(gpu, name, { type });
      const rows = mixedRows(tiny, numBeams);
      const buckets = bucketsOf(rows[0] as GenerateRow);
      const make = (items: number, textRows: number, newRows: number) =>
        makeDecodeMachine(gpu, tiny.model, items, { ...buckets, textRows, newRows });
      const single = await make(1, 4, 16);
      const expected: string[] = [];
      for (const row of rows) expected.push(...(await finalBits(gpu, single, [row], 1)));
      assert.ok(new Set(expected).size >= 4, "rows that differ give different bits");
      const batch = await make(8, 4, 16);
      assert.deepEqual(await finalBits(gpu, batch, rows, 1), expected, "a batch, one step per submit");
      assert.deepEqual(
        await finalBits(gpu, batch, rows.toReversed(), 4),
        expected.toReversed(),
        "another order, four steps",
      );
      assert.deepEqual(await finalBits(gpu, batch, rows, 16), expected, "all steps in one submit, over used buffers");
      const wide = await make(16, 8, 32);
      assert.deepEqual(await finalBits(gpu, wide, rows, 7), expected, "wider buckets, seven steps");
      const parts = await makeDecodeMachine(gpu, tiny.model, 8, { ...buckets, textRows: 4, newRows: 16 }, 1);
      assert.equal((await parts.load([...rows.entries()])).length, tiny.config.layers + 1, "all but the logits");
      assert.equal(parts.next.length, tiny.config.layers + 2);
      assert.deepEqual(await finalBits(gpu, parts, rows, 3), expected, "every layer recorded by itself");
      for (const machine of [single, batch, wide, parts]) machine.destroy();
    });

    test(`${name}, ${type}, ${numBeams} beams: bits do not depend on how the head is split`, async () => {
      let expected: string[] | undefined;
      for (const headColumns of [undefined, 1000, 64, 13]) {
        const tiny = await loadTinyOpt(gpu, name, { type, ...(headColumns ? { headColumns } : {}) });
        const rows = mixedRows(tiny, numBeams);
        const machine = await makeDecodeMachine(gpu, tiny.model, 8, bucketsOf(rows[0] as GenerateRow));
        const bits = await finalBits(gpu, machine, rows, 5);
        machine.destroy();
        expected ??= bits;
        assert.deepEqual(bits, expected, `${headColumns} columns per segment`);
      }
    });
  }
}

test("rows come back as they end, dropped rows never, and machines are used again", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const machines = new RecordingCache<DecodeMachine>(1);
  const before = gpu.allocatedBytes;
  const lengths = [1, 3, 8, 5];
  const rows = lengths.map((maxNewTokens) =>
    tiny.row(1, { ...defaultGeneration, maxNewTokens, minNewTokens: maxNewTokens }),
  );
  let held = 0;
  for (const attempt of ["new", "used again"]) {
    const batch = startGenerate(gpu, tiny.model, rows, machines, { steps: () => 2 });
    const seen: number[][] = [];
    for (let step = 0; step < 5; step++) {
      const finished = await batch.step(new Set(step >= 1 ? [2] : []));
      seen.push(finished.map(({ row }) => row));
      for (const result of finished) {
        assert.ok("value" in result && result.value.length === lengths[result.row], `${attempt}: row ${result.row}`);
      }
    }
    batch.release();
    assert.deepEqual(seen, [[], [0], [1], [3], []], `${attempt}: prompts, then two steps each`);
    held ||= gpu.allocatedBytes;
    assert.equal(gpu.allocatedBytes, held, `${attempt}: nothing more allocated`);
  }
  // One idle machine is kept, of another shape now.
  const other = startGenerate(gpu, tiny.model, [tiny.row(0, { ...defaultGeneration, numBeams: 2 })], machines);
  await other.step(new Set());
  other.release();
  machines.destroy();
  assert.ok(held > before);
  const scratch = gpu.allocatedBytes;
  const again = new RecordingCache<DecodeMachine>(1);
  const batch = startGenerate(gpu, tiny.model, rows, again);
  await batch.step(new Set());
  batch.release();
  again.destroy();
  assert.equal(gpu.allocatedBytes, scratch, "all that a machine allocates is freed");
});

test("a step of several submits: the same ids, and every submit is one", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const rows = mixedRows(tiny, 2).slice(0, 3);
  const answers = async (mostOperations: number) => {
    const machines = new RecordingCache<DecodeMachine>(1);
    const batch = startGenerate(gpu, tiny.model, rows, machines, { mostOperations, steps: () => 1 });
    const ids: number[][] = [];
    let submits = 0;
    for (; ids.flat().length === 0 || Object.keys(ids).length < rows.length; submits++) {
      for (const result of await batch.step(new Set())) if ("value" in result) ids[result.row] = result.value;
    }
    batch.release();
    machines.destroy();
    return { ids, submits };
  };
  const whole = await answers(Number.MAX_SAFE_INTEGER);
  const parts = await answers(1);
  assert.deepEqual(parts.ids, whole.ids);
  // The prompts once, without logits, then steps.
  assert.equal(parts.submits, whole.submits * (tiny.config.layers + 2) - 1);
});

test("weights that are not numbers: an error per row, not an answer", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const { bytes } = tiny.prompt(0);
  const broken = new Uint8Array(new Float32Array(bytes.length / 4).fill(Number.NaN).buffer);
  const ways: Partial<Generation>[] = [{}, { numBeams: 3 }, { doSample: true, seed: 1 }];
  // An end that comes too early must not be taken for the best of numbers.
  for (const way of ways.flatMap((each) => [each, { ...each, minNewTokens: 3 }])) {
    const generation: Generation = { ...defaultGeneration, ...way, maxNewTokens: 5 };
    const row = { ...tiny.row(0, generation), image: "ab".repeat(32) };
    const program = generateProgram(gpu, tiny.model);
    const rows = [row, { ...row, prompt: { ...row.prompt, bytes: broken } }];
    const [good, bad] = await generateAll(program, rows);
    program.close();
    assert.ok(Array.isArray(good));
    const told = JSON.stringify(way);
    assert.ok(bad instanceof GenerationError, `${told}: ${bad}`);
    assert.match(bad.message, /^generate: expected finite logits, got NaN at step 1; .* try --dtype f32$/, told);
  }
});

test("what the model cannot serve is refused before anything is queued", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const good = tiny.row(1, defaultGeneration);
  checkGenerateRow(tiny.model, good);
  // 48 positions: 3 image slots, 3 ids, 42 new ones.
  checkGenerateRow(tiny.model, { ...good, generation: { ...defaultGeneration, maxNewTokens: 42 } });
  const refused: [Partial<Generation>, RegExp][] = [
    [{ maxNewTokens: 43 }, /at most 48 positions.* got 49 \(3 \+ 3 \+ 43\)/],
    [{ maxNewTokens: 0 }, /maxNewTokens: expected at least 1, got 0/],
    [{ maxNewTokens: 1.5 }, /maxNewTokens/],
    [{ minNewTokens: -1 }, /minNewTokens: expected at least 0, got -1/],
    [{ numBeams: 0 }, /numBeams: expected 1 to 32, got 0/],
    [{ numBeams: 33 }, /numBeams/],
    [{ lengthPenalty: Number.NaN }, /lengthPenalty/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty: expected a finite number above 0, got 0/],
    [{ repetitionPenalty: Number.POSITIVE_INFINITY }, /repetitionPenalty/],
  ];
  const expectRefusal = (row: GenerateRow, message: RegExp) =>
    assert.throws(
      () => checkGenerateRow(tiny.model, row),
      (error) => error instanceof GenerationError && message.test(error.message),
      String(message),
    );
  for (const [generation, message] of refused) {
    expectRefusal({ ...good, generation: { ...defaultGeneration, ...generation } }, message);
  }
  expectRefusal({ ...good, textIds: [2, 97] }, /text ids below the vocabulary's 97, got 97/);
  expectRefusal({ ...good, textIds: [-1] }, /got -1/);
  expectRefusal({ ...good, prompt: { ...good.prompt, shape: [3, 28] } }, /prompt \(3, 27\), got prompt \(3, 28\)/);
  expectRefusal({ ...good, prompt: { ...good.prompt, kind: "features" } }, /got features/);
  expectRefusal({ ...good, prompt: { ...good.prompt, bytes: good.prompt.bytes.subarray(4) } }, /324 bytes.*got 320/);
  const machines = new RecordingCache<DecodeMachine>(1);
  const other = tiny.row(1, { ...defaultGeneration, numBeams: 2 });
  assert.throws(() => startGenerate(gpu, tiny.model, [good, other], machines), GenerationError);
  assert.throws(() => startGenerate(gpu, tiny.model, [], machines), GenerationError);
});

test("rows of a batch are bounded by what fits a binding", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const key = generateKey(tiny.row(1, { ...defaultGeneration, numBeams: 5 }));
  const rows = (bindingLimit: number, softwareAdapter: boolean) =>
    maxGenerateRows({ bindingLimit, softwareAdapter }, tiny.model, key);
  assert.equal(rows(2 ** 27, true), 8);
  assert.equal(rows(2 ** 27, false), 16);
  // 5 beams x 32 new + 35 prompt rows, 27 wide, in f32: 21,060 bytes of cache per item.
  assert.equal(rows(21_060 * 4, false), 4);
  assert.equal(rows(21_060 * 4 - 1, false), 2);
  assert.equal(rows(100, false), 1);
  assert.throws(() => maxGenerateRows(gpu, tiny.model, "beams 5"), GenerationError);
});

test("steps of a submit: one to learn the time, then what fits, never more than it may hold", () => {
  const steps = stepsWithin(20);
  assert.equal(steps(19, undefined), 1);
  assert.equal(steps(19, 0.01), 8);
  assert.equal(steps(19, 6), 3);
  assert.equal(steps(2, 6), 2);
  assert.equal(steps(19, 5000), 1);
});
