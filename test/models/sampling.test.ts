// Sampling through the whole model: the ids that an f64 model and an f64 sampler give, and what must not change them.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Gpu } from "../../src/gpu/device.ts";
import { GenerationError } from "../../src/models/errors.ts";
import { type GenerateOptions, generateProgram } from "../../src/models/generate.ts";
import { checkGenerateRow, type GenerateRow } from "../../src/models/generate-row.ts";
import { samplingWords } from "../../src/models/sampling-words.ts";
import { defaultGeneration, type Generation } from "../../src/stages.ts";
import { openTestGpu } from "../gpu/open-test-gpu.ts";
import { lowest, penalised, ranked } from "../reference/decoding.ts";
import { drawn, keptIds, probabilities } from "../reference/sampling.ts";
import { loadTinyOpt, logitsBehind, type TinyOpt } from "./tiny-opt.ts";

const gpu: Gpu = await openTestGpu();
after(() => gpu.close());

/** Some image's digest. */
const digest = (n: number) => String(n).repeat(64).slice(0, 64);

function sampledRow(tiny: TinyOpt, prompt: number, generation: Partial<Generation>, image = digest(1)): GenerateRow {
  return { ...tiny.row(prompt, { ...defaultGeneration, doSample: true, ...generation }), image };
}

/** Rows that differ in everything that rows of a batch may differ in; rows of one key. */
function mixedRows(tiny: TinyOpt): GenerateRow[] {
  return [
    sampledRow(tiny, 0, { maxNewTokens: 16 }),
    sampledRow(tiny, 1, { maxNewTokens: 12, minNewTokens: 10, topK: 0, temperature: 0.8, seed: 3 }),
    sampledRow(tiny, 3, { maxNewTokens: 13, repetitionPenalty: 1.4, topP: 0.8 }, digest(2)),
    sampledRow(tiny, 0, { maxNewTokens: 9 }, digest(2)),
    sampledRow(tiny, 3, { maxNewTokens: 10, topK: 4, seed: 2 ** 40 + 1 }),
    sampledRow(tiny, 1, {
      maxNewTokens: 11,
      topK: 0,
      topP: 0.5,
      repetitionPenalty: 0.7,
      repetitionPenaltyScope: "new",
    }),
    sampledRow(tiny, 0, { maxNewTokens: 16, temperature: 1.7, seed: 7 }),
    sampledRow(tiny, 3, { maxNewTokens: 16, topK: 1 }),
    sampledRow(tiny, 1, { maxNewTokens: 14, temperature: 0.4, seed: 5 }),
  ];
}

/** The ids of rows, `mostAtOnce` in a batch, or as many as fit the adapter's bindings. */
async function idsOf(
  tiny: TinyOpt,
  rows: readonly GenerateRow[],
  mostAtOnce: number,
  options: GenerateOptions = {},
): Promise<number[][]> {
  const program = generateProgram(gpu, tiny.model, options);
  const atOnce = Math.min(mostAtOnce, ...rows.map((row) => program.maxRows(program.key(row))));
  const ids: number[][] = [];
  for (let from = 0; from < rows.length; from += atOnce) {
    const part = rows.slice(from, from + atOnce);
    const batch = program.start(part);
    for (let left = part.length; left > 0; ) {
      for (const result of await batch.step(new Set())) {
        assert.ok("value" in result, `row ${from + result.row}`);
        ids[from + result.row] = result.value;
        left--;
      }
    }
    batch.release();
  }
  program.close();
  return ids;
}

/** Scores of the next id, in f64: penalties, temperature. */
function nextScores(tiny: TinyOpt, row: GenerateRow, ids: readonly number[]): number[] {
  const { model } = tiny;
  const { textIds } = row;
  const { minNewTokens, repetitionPenalty, repetitionPenaltyScope, temperature } = row.generation;
  const seen = new Set(repetitionPenaltyScope === "all" ? [model.imageId ?? -1, ...textIds, ...ids] : ids);
  const settings = { maxNew: 0, minNew: minNewTokens, penalty: repetitionPenalty, lengthPenalty: 1 };
  const scores = penalised(logitsBehind(tiny, row, ids).at(-1) ?? [], seen, ids.length, settings, model.stopIds);
  return Array.from(scores, (score) => (score === lowest ? lowest : score / temperature));
}

/** The ids of a row by the f64 model and `choose`. */
function referenceIds(
  tiny: TinyOpt,
  row: GenerateRow,
  choose: (scores: number[], generated: number) => number,
): number[] {
  const ids: number[] = [];
  while (ids.length < row.generation.maxNewTokens && !tiny.model.stopIds.includes(ids.at(-1) ?? -1)) {
    ids.push(choose(nextScores(tiny, row, ids), ids.length));
  }
  return ids;
}

test("one-end: the ids of the f64 reference, for every setting", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const rows = mixedRows(tiny);
  let closest = Number.POSITIVE_INFINITY;
  const expected = rows.map((row) => {
    const { topK, topP } = row.generation;
    const words = samplingWords(row);
    const seed = [words[3] ?? 0, words[4] ?? 0] as const;
    const item = [words[5] ?? 0, words[6] ?? 0] as const;
    return referenceIds(tiny, row, (scores, generated) => {
      const { id, margin } = drawn(scores, { temperature: 1, topK, topP, seed, item }, generated);
      closest = Math.min(closest, margin);
      return id;
    });
  });
  assert.ok(closest > 1e-4, `the two best ids of some step come as close as ${closest}; choose another seed`);
  assert.ok(new Set(expected.map(String)).size >= rows.length - 1, "rows that differ give different ids");
  assert.deepEqual(await idsOf(tiny, rows, 9), expected);
});

for (const type of ["f32", "f16"] as const) {
  test(`two-ends, ${type}: batches of 1, 3 and 8, another order, other submits: the same ids`, async () => {
    const tiny = await loadTinyOpt(gpu, "two-ends", { type });
    const rows = mixedRows(tiny);
    const alone = await idsOf(tiny, rows, 1, { steps: () => 1 });
    assert.deepEqual(await idsOf(tiny, rows, 8), alone, "batches of eight");
    assert.deepEqual(await idsOf(tiny, rows.toReversed(), 8, { steps: () => 5 }), alone.toReversed(), "another order");
    assert.deepEqual(await idsOf(tiny, rows, 3, { mostOperations: 1 }), alone, "threes, a layer a submit");
    const split = await loadTinyOpt(gpu, "two-ends", { type, headColumns: 13 });
    assert.deepEqual(await idsOf(split, rows, 8), alone, "the head in pieces");
  });
}

test("a draw depends on seed, image and text, and on nothing else", async () => {
  const tiny = await loadTinyOpt(gpu, "no-end");
  const base = sampledRow(tiny, 0, { maxNewTokens: 8, topK: 0 });
  const other = [
    sampledRow(tiny, 0, { maxNewTokens: 8, topK: 0, seed: 1 }),
    sampledRow(tiny, 0, { maxNewTokens: 8, topK: 0, seed: 2 ** 32 }),
    sampledRow(tiny, 0, { maxNewTokens: 8, topK: 0 }, digest(2)),
    { ...base, textIds: [2, 3] },
  ];
  const words = [base, ...other].map((row) => String([...samplingWords(row)].slice(3)));
  assert.equal(new Set(words).size, words.length);
  const ids = await idsOf(tiny, [base, ...other, base], 6);
  assert.equal(new Set(ids.slice(0, 5).map(String)).size, 5);
  assert.deepEqual(ids[5], ids[0]);
  // Longer texts begin like shorter ones, and the recorded words of one item stay what they are.
  const [longer] = await idsOf(tiny, [sampledRow(tiny, 0, { maxNewTokens: 16, topK: 0 })], 1);
  assert.deepEqual(longer?.slice(0, 8), ids[0]);
  assert.deepEqual([...samplingWords({ ...base, textIds: [2, 11, 30] })].slice(3), [0, 0, 2167651359, 2047085307, 0]);
});

test("first ids over many seeds come as often as the model's probabilities say", async () => {
  // Seeds are fixed, so the verdict is the same on every run; a right sampler passes with 0.999 (20.52 at 5 degrees of
  // freedom).
  const tiny = await loadTinyOpt(gpu, "one-end");
  const draws = 640;
  const asked = { maxNewTokens: 1, topK: 6, temperature: 1.5 };
  const rows = Array.from({ length: draws }, (_, seed) => sampledRow(tiny, 1, { ...asked, seed }));
  const scores = nextScores(tiny, rows[0] as GenerateRow, []);
  const kept = [...keptIds(scores, { topK: 6, topP: 1 })];
  const expected = probabilities(scores, new Set(kept));
  assert.ok(kept.length === 6 && kept.every((id) => draws * (expected[id] ?? 0) > 5), "enough of each");
  const ids = (await idsOf(tiny, rows, 8)).map(([id]) => id);
  assert.ok(ids.every((id) => kept.includes(id ?? -1)));
  const chi = kept.reduce((sum, id) => {
    const want = draws * (expected[id] ?? 0);
    return sum + (ids.filter((each) => each === id).length - want) ** 2 / want;
  }, 0);
  assert.ok(chi < 20.52, `chi-square ${chi.toFixed(1)}`);
});

test("repetition penalty over generated ids alone: the greedy ids of the f64 reference", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const rows = (["all", "new"] as const).flatMap((repetitionPenaltyScope) =>
    [0, 1, 3].map((prompt) =>
      tiny.row(prompt, { ...defaultGeneration, maxNewTokens: 9, repetitionPenalty: 0.7, repetitionPenaltyScope }),
    ),
  );
  const expected = rows.map((row) => referenceIds(tiny, row, (scores) => ranked(scores)[0]?.[1] ?? -1));
  assert.notDeepEqual(expected.slice(0, 3), expected.slice(3), "the scope makes a difference");
  assert.deepEqual(await idsOf(tiny, rows, 6), expected);
});

test("ids are told as they come, of rows that go on", async () => {
  const tiny = await loadTinyOpt(gpu, "no-end");
  const rows = [7, 3].map((maxNewTokens) => tiny.row(0, { ...defaultGeneration, maxNewTokens }));
  const program = generateProgram(gpu, tiny.model, { steps: () => 2 });
  const batch = program.start(rows);
  const told: [number, number][] = [];
  let whole: number[] = [];
  for (let left = 2; left > 0; ) {
    const partial: number[][] = [];
    const results = await batch.step(new Set(), (row, ids) => {
      told.push([row, ids.length]);
      if (row === 0) partial.push(ids);
    });
    for (const result of results) {
      assert.ok("value" in result);
      if (result.row === 0) whole = result.value;
      left--;
    }
    if (whole.length > 0) assert.deepEqual(partial, []);
  }
  batch.release();
  program.close();
  assert.equal(whole.length, 7);
  assert.deepEqual(told, [
    [0, 2],
    [1, 2],
    [0, 4],
    [0, 6],
  ]);
});

test("what cannot be sampled is refused with the setting's name", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  checkGenerateRow(tiny.model, sampledRow(tiny, 1, { topK: 0, topP: 0, temperature: 1e-6, seed: 2 ** 53 - 1 }));
  checkGenerateRow(tiny.model, tiny.row(1, { ...defaultGeneration, temperature: 0 }));
  const refused: [Partial<Generation>, RegExp][] = [
    [{ numBeams: 2 }, /doSample: expected no beams \(numBeams 1\): there is no beam sampling, got 2/],
    [{ temperature: 0 }, /temperature: expected a finite number of at least 0.000001 .* got 0/],
    [{ temperature: Number.NaN }, /temperature/],
    [{ temperature: Number.POSITIVE_INFINITY }, /temperature/],
    [{ topK: -1 }, /topK: expected a whole number from 0 to 16777216, got -1/],
    [{ topK: 2.5 }, /topK/],
    [{ topP: 1.1 }, /topP: expected a number from 0 to 1, got 1.1/],
    [{ topP: Number.NaN }, /topP/],
    [{ seed: -1 }, /seed: expected a whole number from 0 to 2\^53 - 1, got -1/],
    [{ seed: 2 ** 53 }, /seed/],
    [{ stopStrings: [""] }, /stopStrings: expected a list of texts that are not empty, got \[""\]/],
    [{ stopStrings: "end" as unknown as string[] }, /stopStrings/],
    [{ doSample: false, numBeams: 2, stopStrings: ["x"] }, /stopStrings: expected no beams \(numBeams 1\).* got 2/],
    [{ repetitionPenaltyScope: "some" as "all" }, /repetitionPenaltyScope: expected "all" or "new", got some/],
  ];
  for (const [generation, message] of refused) {
    assert.throws(
      () => checkGenerateRow(tiny.model, sampledRow(tiny, 1, generation)),
      (error) => error instanceof GenerationError && message.test(error.message),
      String(message),
    );
  }
  assert.throws(
    () => checkGenerateRow(tiny.model, tiny.row(1, { ...defaultGeneration, doSample: true })),
    /doSample: expected the digest of the image, which the draws depend on, got undefined/,
  );
});
