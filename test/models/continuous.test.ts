// Rows that join a batch of generate and leave it, in many orders: every one gets the ids, to the last, that it gets alone.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import type { RowProgram } from "../../src/gpu/row-program.ts";
import { RowScheduler } from "../../src/gpu/scheduler.ts";
import { GenerationError } from "../../src/models/errors.ts";
import { generateProgram } from "../../src/models/generate.ts";
import type { StepPlan } from "../../src/models/generate-batch.ts";
import { type GenerateRow, generateKey } from "../../src/models/generate-row.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { defaultGeneration, type Generation } from "../../src/stages.ts";
import { packF16 } from "../kernels/harness.ts";
import { loadBlipLanguage } from "./blip-parity.ts";
import { glmFolder } from "./glm-checkpoint.ts";
import { modelFolder } from "./parity.ts";
import { loadTinyOpt } from "./tiny-opt.ts";

const gpu: Gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());

type Program = RowProgram<GenerateRow, number[]>;

/** Whole numbers below a bound, always the same ones: a linear congruential generator (Numerical Recipes' constants). */
function chance(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What every row gets in a batch of its own. */
async function alone(program: Program, rows: readonly GenerateRow[]): Promise<number[][]> {
  const all: number[][] = [];
  for (const row of rows) {
    const batch = program.start([row]);
    for (let ids: number[] | undefined; ids === undefined; ) {
      const [result] = await batch.step(new Set());
      if (result === undefined) continue;
      ids = "value" in result ? result.value : assert.fail(String(result.error));
      all.push(ids);
    }
    batch.release();
  }
  return all;
}

/**
 * One batch of at most four rows at once, into which the rows come in some order, at some boundaries, and out of which some
 * are dropped. It begins with few, and so with a machine that is too small later.
 * @returns ids by row; of dropped ones none
 */
async function together(
  program: Program,
  rows: readonly GenerateRow[],
  seed: number,
  dropOneIn: number,
): Promise<Map<number, number[]>> {
  const pick = chance(seed);
  const order = [...rows.keys()];
  for (let i = order.length - 1; i > 0; i--) {
    const other = pick(i + 1);
    [order[i], order[other]] = [order[other] ?? 0, order[i] ?? 0];
  }
  const came = order.splice(0, 1 + pick(3));
  const most = program.maxRows(generateKey(rows[0] as GenerateRow));
  const batch = program.start(came.map((i) => rows[i] as GenerateRow));
  const { joining } = batch;
  assert.ok(joining);
  const open = new Set(came.keys());
  const dropped = new Set<number>();
  const results = new Map<number, number[]>();
  for (let boundary = 0; order.length > 0 || open.size > 0; boundary++) {
    assert.equal(joining.room(), most - open.size, "a place is free as soon as its row has gone");
    const least = open.size === 0 ? 1 : 0;
    const more = order.splice(0, Math.max(least, pick(4 - open.size + 1)));
    joining.join(more.map((i) => rows[i] as GenerateRow));
    for (const row of more) open.add(came.push(row) - 1);
    for (const place of open) if (pick(dropOneIn) === 0) dropped.add(place);
    const partial = new Map<number, number[]>();
    const finished = await batch.step(dropped, (place, ids) => partial.set(place, ids));
    for (const place of dropped) open.delete(place);
    for (const result of finished) {
      assert.ok("value" in result && open.delete(result.row), `place ${result.row} ends once`);
      results.set(came[result.row] ?? -1, result.value);
    }
    for (const place of partial.keys()) assert.ok(open.has(place), "only of rows that are there");
    assert.ok(boundary < 10_000, "rows end");
  }
  assert.equal(came.length, rows.length);
  batch.release();
  return results;
}

/**
 * Every row in several orders, against what it gets alone.
 * @param dropOneIn how many boundaries a row goes through, about, before it is dropped
 */
async function compareOrders(
  program: Program,
  rows: readonly GenerateRow[],
  seeds: readonly number[],
  dropOneIn = 36,
): Promise<void> {
  const key = generateKey(rows[0] as GenerateRow);
  for (const row of rows) assert.equal(generateKey(row), key, "rows that may meet");
  const expected = await alone(program, rows);
  assert.ok(new Set(expected.map(String)).size > rows.length / 2, "rows that differ get different ids");
  assert.ok(new Set(expected.map((ids) => ids.length)).size >= 4, "of different lengths");
  let compared = 0;
  for (const seed of seeds) {
    for (const [row, ids] of await together(program, rows, seed, dropOneIn)) {
      assert.deepEqual(ids, expected[row], `order ${seed}, row ${row}`);
      compared++;
    }
  }
  assert.ok(compared > (rows.length * seeds.length) / 2);
}

const lengths = [1, 30, 2, 9, 17, 3, 24, 5, 12, 20];

/** Settings that rows of a batch may differ in. */
function settingsOf(i: number, numBeams: number, doSample: boolean): Generation {
  const maxNewTokens = lengths[i % lengths.length] ?? 1;
  return {
    ...defaultGeneration,
    numBeams,
    maxNewTokens,
    minNewTokens: i % 3 === 0 ? maxNewTokens : 0,
    ...(i % 4 === 1 && { repetitionPenalty: 1.5 }),
    ...(i % 4 === 2 && { repetitionPenalty: 1.3, repetitionPenaltyScope: "new" as const }),
    ...(numBeams > 1 && { lengthPenalty: i % 2 === 0 ? 1 : -1 }),
    ...(doSample && { doSample, seed: 7 + (i % 2), temperature: 0.9, topK: i % 2 === 0 ? 50 : 0 }),
  };
}

/** A picture that nobody drew, and its digest. */
function picture({ kind, shape }: LanguageModel["prompt"], type: "f32" | "f16", seed: number) {
  const values = Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => 2 * Math.sin((i + 1) * seed));
  const words = type === "f16" ? packF16(values) : values;
  const bytes = new Uint8Array(words.buffer, 0, values.length * (type === "f16" ? 2 : 4));
  return {
    prompt: { kind, type, shape, bytes },
    image: String(Math.round(10 * seed))
      .repeat(64)
      .slice(0, 64),
  };
}

/** One step of a submit, then two, then three, then one again. */
function changingSteps(): StepPlan {
  let last = 0;
  return (left) => Math.min(left, 1 + (last++ % 3));
}

const ways = [
  ["greedy search", 1, false],
  ["3 beams", 3, false],
  ["sampling", 1, true],
] as const;

for (const [way, numBeams, doSample] of ways) {
  for (const [name, type, inFlight] of [
    ["one-end", "f32", 1],
    ["two-ends", "f16", 2],
  ] as const) {
    test(`${name}, ${type}, ${way}, ${inFlight} in flight: rows that join and leave get what they get alone`, async () => {
      const tiny = await loadTinyOpt(gpu, name, { type });
      const program = generateProgram(gpu, tiny.model, { steps: changingSteps(), inFlight });
      const rows = lengths.map((_, i) => {
        const { prompt, image } = picture(tiny.model.prompt, type, 0.3 + 0.7 * i);
        const textIds = [2, ...Array.from({ length: (i * 3) % 8 }, (_, t) => 5 + ((7 * i + t) % 80))];
        return { prompt, image, textIds, generation: settingsOf(i, numBeams, doSample) };
      });
      await compareOrders(program, rows, [1, 2, 3, 4]);
      program.close();
    });
  }

  for (const [name, type, inFlight] of [
    ["blip-vqa-tiny", "f32", 2],
    ["blip-caption-half", "f16", 1],
  ] as const) {
    test(`${name}, ${type}, ${way}, ${inFlight} in flight: with memories of different lengths too`, async () => {
      const { model, loader } = await loadBlipLanguage(gpu, name, type);
      const program = generateProgram(gpu, model, { steps: changingSteps(), inFlight });
      const rows = lengths.map((_, i) => {
        const { prompt, image } = picture(model.prompt, type, 0.3 + 0.7 * i);
        const textIds = [2, ...Array.from({ length: (i * 3) % 8 }, (_, t) => 5 + ((7 * i + t) % 60)), 3];
        return { prompt, image, textIds, generation: settingsOf(i, numBeams, doSample) };
      });
      await compareOrders(program, rows, [5, 6, 7]);
      program.close();
      loader.release();
    });
  }
}

for (const [name, folder] of [
  ["T5", modelFolder("blip2-t5-tiny")],
  ["VisualGLM", glmFolder],
] as const) {
  for (const [way, numBeams, doSample] of ways.slice(0, 2)) {
    test(`${name}, ${way}: rows that join and leave get what they get alone`, async () => {
      const { card, programs, release } = await loadModel(gpu, folder, { dtype: "f32" });
      const { generate } = programs;
      assert.ok(generate);
      const rows = lengths.map((_, i) => {
        const { prompt, image } = picture({ kind: "prompt", shape: card.prompt }, "f32", 0.3 + 0.7 * i);
        const ids = Array.from({ length: 1 + ((i * 3) % 8) }, (_, t) => 5 + ((7 * i + t) % 80));
        // VisualGLM's ids have the image among them, as id 0.
        const textIds = name === "T5" ? ids : [9, 0, ...ids];
        return { prompt, image, textIds, generation: settingsOf(i, numBeams, doSample) };
      });
      await compareOrders(generate, rows, [8, 9, 10]);
      release();
    });
  }
}

test("one-end, 3 beams, every layer a submit of its own: rows join between two steps only", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const program = generateProgram(gpu, tiny.model, { mostOperations: 1, inFlight: 2 });
  const rows = [4, 9, 1, 6, 3, 8].map((maxNewTokens, i) => {
    const generation = { ...defaultGeneration, numBeams: 3, maxNewTokens, minNewTokens: maxNewTokens };
    return { ...picture(tiny.model.prompt, "f32", 0.8 + i), textIds: [2, 11 + i], generation };
  });
  await compareOrders(program, rows, [11, 12], 200);
  program.close();
});

test("a joining row that cannot be served, or whose prompt is no number, disturbs nobody", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const program = generateProgram(gpu, tiny.model, { steps: () => 1 });
  const rows = [12, 3, 9, 7].map((maxNewTokens, i) => {
    const generation = { ...defaultGeneration, maxNewTokens, minNewTokens: maxNewTokens };
    return { ...picture(tiny.model.prompt, "f32", 1.1 + i), textIds: [2, 11 + i], generation };
  });
  const [slow, quick, behind, last] = rows;
  assert.ok(slow && quick && behind && last);
  const broken = { ...behind.prompt, bytes: new Uint8Array(new Float32Array(81).fill(Number.NaN).buffer) };
  const expected = await alone(program, rows);
  const batch = program.start([slow, quick]);
  const { joining } = batch;
  assert.ok(joining);
  const results = new Map<number, number[] | Error>();
  const stepUntil = async (done: () => boolean) => {
    while (!done()) {
      for (const result of await batch.step(new Set()))
        results.set(result.row, "value" in result ? result.value : result.error);
    }
  };
  await stepUntil(() => results.has(1));
  const refused: [Partial<GenerateRow>, RegExp][] = [
    [{ textIds: [2, 97] }, /below the vocabulary's 97/],
    [{ prompt: { ...behind.prompt, bytes: behind.prompt.bytes.subarray(4) } }, /324 bytes/],
    [{ generation: { ...defaultGeneration, numBeams: 3 } }, /rows of one key/],
  ];
  const room = joining.room();
  for (const [change, message] of refused) {
    assert.throws(
      () => joining.join([behind, { ...behind, ...change }]),
      (error) => error instanceof GenerationError && message.test(error.message),
    );
    assert.equal(joining.room(), room, "nobody joined");
  }
  joining.join([{ ...behind, prompt: broken, generation: { ...defaultGeneration, maxNewTokens: 9 } }]);
  await stepUntil(() => results.has(2));
  assert.match(String(results.get(2)), /got NaN/);
  joining.join([last]);
  await stepUntil(() => results.has(0) && results.has(3));
  assert.deepEqual([results.get(0), results.get(1), results.get(3)], [expected[0], expected[1], expected[3]]);
  batch.release();
  program.close();
});

test("through the scheduler: one batch of four serves twelve rows, whoever is done first", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const program = generateProgram(gpu, tiny.model, { steps: () => 2 });
  const small = { ...program, maxRows: () => 4 };
  const rows = Array.from({ length: 12 }, (_, i) => {
    const generation = settingsOf(i, 1, false);
    return { ...picture(tiny.model.prompt, "f32", 0.9 + i), textIds: [2, 11 + i], generation };
  });
  const expected = await alone(program, rows);
  const scheduler = new RowScheduler();
  const got = await Promise.all(rows.map((row) => scheduler.run(small, row)));
  assert.deepEqual(got, expected);
  const { batches, joined } = scheduler.stats(small);
  assert.deepEqual({ batches, joined }, { batches: 1, joined: 8 });
  await scheduler.close();
  program.close();
});
