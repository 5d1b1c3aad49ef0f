// Log-probabilities of given texts, against an f64 model over each whole sequence; and what must not change them.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import { GenerationError } from "../../src/models/errors.ts";
import { mostAnswers, type RankRow, rankProgram } from "../../src/models/rank.ts";
import { expectClose } from "../kernels/harness.ts";
import { logSoftmax } from "../reference/decoding.ts";
import { loadTinyOpt, logitsBehind, type TinyOpt } from "./tiny-opt.ts";

const gpu: Gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());

/** Texts of 0 to 6 ids. */
function answers(count: number, vocabulary: number): number[][] {
  return Array.from({ length: count }, (_, n) =>
    Array.from({ length: n % 7 }, (_, t) => (13 * n + 29 * t + 5) % vocabulary),
  );
}

function rankRow(tiny: TinyOpt, prompt: number, given: RankRow["answers"]): RankRow {
  return { prompt: tiny.prompt(prompt), textIds: tiny.cases.texts[prompt] ?? [], answers: given };
}

async function scoresOf(tiny: TinyOpt, rows: readonly RankRow[]): Promise<number[][]> {
  const all = await resultsOf(tiny, rows);
  return all.map((scores) => scores.map((score) => score ?? assert.fail("a score of every text")));
}

async function resultsOf(tiny: TinyOpt, rows: readonly RankRow[]): Promise<(number | null)[][]> {
  const program = rankProgram(gpu, tiny.model);
  const batch = program.start(rows);
  const scores: (number | null)[][] = [];
  for (let left = rows.length; left > 0; ) {
    for (const result of await batch.step(new Set())) {
      if ("error" in result) throw result.error;
      scores[result.row] = result.value;
      left--;
    }
  }
  batch.release();
  program.close();
  return scores;
}

for (const name of ["one-end", "two-ends"]) {
  test(`${name}: sums of the f64 model's log-probabilities, the end included`, async () => {
    const tiny = await loadTinyOpt(gpu, name);
    const { model, cases } = tiny;
    const [end = 0] = model.stopIds;
    const rows = [0, 1, 2, 3].map((prompt) => rankRow(tiny, prompt, answers(9, model.vocabulary)));
    for (const row of rows) {
      const [got] = await scoresOf(tiny, [row]);
      const expected = row.answers.map((ids) => {
        const logits = logitsBehind(tiny, row, ids);
        const from = cases.queries + row.textIds.length - 1;
        const each = [...ids, end].map((id, t) => logSoftmax(logits[from + t] ?? [])[id] ?? Number.NaN);
        return each.reduce((sum, value) => sum + value, 0);
      });
      assert.ok(new Set(expected).size >= 8);
      expectClose(got, expected, { absolute: 1e-4, relative: 1e-5, reason: "up to seven logarithms of f32 sums" });
    }
  });
}

for (const type of ["f32", "f16"] as const) {
  test(`one-end, ${type}: rows in one batch, texts in another order or alone: the same bits`, async () => {
    const tiny = await loadTinyOpt(gpu, "one-end", { type });
    const given = answers(11, tiny.model.vocabulary);
    const rows = [0, 1, 3].map((prompt) => rankRow(tiny, prompt, given));
    const together = await scoresOf(tiny, rows);
    for (const [i, row] of rows.entries()) {
      assert.deepEqual((await scoresOf(tiny, [row]))[0], together[i], "a batch of one");
      const [turned] = await scoresOf(tiny, [{ ...row, answers: given.toReversed() }]);
      assert.deepEqual(turned, together[i]?.toReversed(), "another order");
      const alone = await Promise.all(given.slice(4, 8).map((ids) => scoresOf(tiny, [{ ...row, answers: [ids] }])));
      assert.deepEqual(alone.flat(2), together[i]?.slice(4, 8), "one text a row");
    }
  });
}

test("more texts than are read together; rows of one batch that need unequally many rounds", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const many = answers(71, tiny.model.vocabulary);
  const rows = [rankRow(tiny, 0, many), rankRow(tiny, 1, many.slice(0, 32)), { ...rankRow(tiny, 3, many), keep: 40 }];
  const together = await resultsOf(tiny, rows);
  const [whole = [], short = [], kept = []] = together;
  assert.equal(whole.length, 71);
  for (const [i, row] of rows.entries()) assert.deepEqual((await resultsOf(tiny, [row]))[0], together[i], "alone");
  const last = { ...rankRow(tiny, 0, many.slice(60)), answers: many.slice(60) };
  assert.deepEqual((await scoresOf(tiny, [last]))[0], whole.slice(60));
  assert.deepEqual((await scoresOf(tiny, [rankRow(tiny, 1, many.slice(0, 32))]))[0], short);
  assert.equal(kept.filter((score) => score !== null).length, 40);
});

test("keep: the texts whose first ids are the likeliest, the end for one without ids; of equal ones the earlier", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const given = [[5, 9], [11], [], [5, 40, 3], [23, 1], [5], [70, 2]];
  const row = rankRow(tiny, 1, given);
  const [end = 0] = tiny.model.stopIds;
  const { cases } = tiny;
  const first = logSoftmax(logitsBehind(tiny, row, [])[cases.queries + row.textIds.length - 1] ?? []);
  const order = [...given.keys()].sort((a, b) => {
    const of = (i: number) => first[given[i]?.[0] ?? end] ?? Number.NaN;
    return of(b) - of(a) || a - b;
  });
  const [whole = []] = await resultsOf(tiny, [row]);
  for (let keep = 1; keep <= given.length; keep++) {
    const [scores = []] = await resultsOf(tiny, [{ ...row, keep }]);
    const wanted = new Set(order.slice(0, keep));
    assert.deepEqual(
      scores,
      whole.map((score, i) => (wanted.has(i) ? score : null)),
      `keep ${keep} of ${order}`,
    );
  }
  await assert.rejects(resultsOf(tiny, [{ ...row, keep: 0 }]), /rank: expected at least one text to keep, got 0/);
});

test("what cannot be ranked is refused, and weights that are not numbers give an error", async () => {
  const tiny = await loadTinyOpt(gpu, "one-end");
  const program = rankProgram(gpu, tiny.model);
  const refused: [RankRow["answers"], RegExp][] = [
    [[], /rank: expected 1 to 16384 texts, got 0/],
    [new Array(mostAnswers + 1).fill([1]), /got 16385/],
    [[[1], [97]], /rank: expected ids below the vocabulary's 97, got 97/],
    [[[1.5]], /got 1.5/],
    [[new Array(42).fill(3)], /at most 48 positions .* got 49 \(3 \+ 3 \+ 43\)/],
  ];
  for (const [given, message] of refused) {
    assert.throws(
      () => program.start([rankRow(tiny, 1, given)]),
      (error) => error instanceof GenerationError && message.test(error.message),
      String(message),
    );
  }
  program.close();
  const endless = await loadTinyOpt(gpu, "no-end");
  assert.throws(() => rankProgram(gpu, endless.model).start([rankRow(endless, 0, [[1]])]), /id that ends a text/);
  const { bytes } = tiny.prompt(0);
  const broken = new Uint8Array(new Float32Array(bytes.length / 4).fill(Number.NaN).buffer);
  const row = rankRow(tiny, 0, [[3], [4, 5]]);
  await assert.rejects(scoresOf(tiny, [{ ...row, prompt: { ...row.prompt, bytes: broken } }]), /got NaN/);
});
