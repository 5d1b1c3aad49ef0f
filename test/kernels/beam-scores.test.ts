import assert from "node:assert/strict";
import { test } from "node:test";
import { ShapeError } from "../../src/gpu/errors.ts";
import { beamScores } from "../../src/kernels/beam-scores.ts";
import { logSumExp } from "../../src/kernels/log-sum-exp.ts";
import { logSoftmax, lowest, penalised, type Settings } from "../reference/decoding.ts";
import { type DecodeCase, decodeState, fromFloatBits } from "./decode-rig.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();
const plain: Settings = { maxNew: 9, minNew: 0, penalty: 1, lengthPenalty: 1 };

async function compare(given: DecodeCase, logits: Float32Array, chunk: number, softwareAdapter: boolean) {
  const { vocabulary, beams, items, stopIds } = given;
  const rows = items.length * beams;
  const state = await decodeState(rig, given);
  const tensor = await rig.tensor("logits", [rows, vocabulary], logits);
  const cut = { chunk, chunks: Math.ceil(vocabulary / chunk) };
  const [scores, best] = await rig.run((recorder) => {
    const k = asFamily(recorder, softwareAdapter);
    const both = beamScores(k, tensor, logSumExp(k, tensor, cut), state, cut);
    return [both.scores, both.best];
  });
  assert.ok(scores instanceof Float32Array && best);
  const expected = items.flatMap((item, i) =>
    Array.from({ length: beams }, (_, beam) => {
      const from = (i * beams + beam) * vocabulary;
      const own = logSoftmax(logits.subarray(from, from + vocabulary));
      const running = Math.fround(item.running?.[beam] ?? (beam === 0 ? 0 : -1e9));
      const done = penalised(own, new Set(item.seen), item.generated ?? 0, item.settings, stopIds);
      return Array.from(done, (score) => (score === lowest ? lowest : score + running));
    }).flat(),
  );
  expectClose(scores, expected, {
    absolute: 5e-6,
    relative: 3e-7,
    reason: "f32 exp, log and sums; scores of up to 50",
  });
  // The heads must be those of the very scores that were written, with the lowest id of equal ones.
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < cut.chunks; c++) {
      const part: Float32Array = scores.subarray(
        row * vocabulary + c * chunk,
        row * vocabulary + Math.min(vocabulary, (c + 1) * chunk),
      );
      const high: number = part.reduce((a, b) => Math.max(a, b));
      const at = 2 * (row * cut.chunks + c);
      assert.equal(fromFloatBits(best[at]), high);
      assert.equal(best[at + 1], c * chunk + part.indexOf(high));
    }
  }
}

for (const { softwareAdapter, family } of families) {
  for (const [vocabulary, chunk, beams] of [
    [5, 64, 2],
    [41, 16, 3],
    [97, 32, 5],
    [1025, 1024, 2],
    [2100, 1024, 6],
  ] as const) {
    test(`${vocabulary} ids in chunks of ${chunk}, ${beams} beams, ${family}`, async () => {
      const seen = Array.from({ length: vocabulary }, (_, id) => id).filter((id) => id % 4 === 0 || id === 31);
      const running = Array.from({ length: beams }, (_, beam) => -1.5 * beam - 0.25);
      const given: DecodeCase = {
        beams,
        newRows: 4,
        vocabulary,
        stopIds: [3, vocabulary - 1],
        items: [
          { settings: plain },
          { settings: { ...plain, penalty: 1.7 }, seen, running },
          { settings: { ...plain, penalty: 0.5, minNew: 4 }, seen, running, generated: 3 },
          { settings: { ...plain, minNew: 3 }, running, generated: 3 },
        ],
      };
      const count = given.items.length * beams * vocabulary;
      await compare(given, randomValues(count, beams, 5), chunk, softwareAdapter);
      await compare(
        given,
        randomValues(count, 3, 5).map((value) => value + 500),
        chunk,
        softwareAdapter,
      );
    });
  }

  test(`a probability of one: log 0 is unharmed by the penalty, ${family}`, async () => {
    const given: DecodeCase = {
      beams: 2,
      newRows: 4,
      vocabulary: 9,
      stopIds: [],
      items: [{ settings: { ...plain, penalty: 3 }, seen: [4, 5] }],
    };
    const logits = new Float32Array(18).fill(-30);
    logits[4] = 90;
    logits[9 + 4] = 90;
    await compare(given, logits, 8, softwareAdapter);
  });

  test(`not a number: no id, nor an end that comes too early, ${family}`, async () => {
    const vocabulary = 4;
    const given: DecodeCase = {
      ...{ beams: 2, newRows: 4, vocabulary, stopIds: [2, 3] },
      items: [{ settings: { ...plain, minNew: 2 } }],
    };
    const state = await decodeState(rig, given);
    const logits = await rig.tensor("logits", [2, vocabulary], new Float32Array(8).fill(Number.NaN));
    const cut = { chunk: 2, chunks: 2 };
    const [best] = await rig.run((recorder) => {
      const k = asFamily(recorder, softwareAdapter);
      return [beamScores(k, logits, logSumExp(k, logits, cut), state, cut).best];
    });
    assert.deepEqual(
      [1, 3, 5, 7].map((at) => best?.[at]),
      new Array(4).fill(0xffffffff),
    );
  });

  test(`scores that the running score makes equal: the lowest id, ${family}`, async () => {
    // 1e9 leaves nothing of log-probabilities in f32, so all ids of beam 1 score the same.
    const given: DecodeCase = { beams: 2, newRows: 4, vocabulary: 200, stopIds: [], items: [{ settings: plain }] };
    await compare(given, randomValues(400, 8, 3), 64, softwareAdapter);
  });
}

test("logits of fewer rows than beams are refused", async () => {
  const state = await decodeState(rig, {
    beams: 3,
    newRows: 4,
    vocabulary: 8,
    stopIds: [],
    items: [{ settings: plain }, { settings: plain }],
  });
  const logits = await rig.tensor("logits", [4, 8]);
  const partials = await rig.tensor("partials", [4, 1, 2]);
  const recording = rig.gpu.record("refused", (k) => beamScores(k, logits, partials, state, { chunk: 8, chunks: 1 }));
  await assert.rejects(
    recording,
    (error) => error instanceof ShapeError && /to be \(6, 8\), got \(4, 8\)/.test(error.message),
  );
});
