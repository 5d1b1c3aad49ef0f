import assert from "node:assert/strict";
import { test } from "node:test";
import { greedyScores } from "../../src/kernels/greedy-scores.ts";
import { lowest, penalised, ranked, type Settings } from "../reference/decoding.ts";
import { type DecodeCase, decodeState, fromFloatBits } from "./decode-rig.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();
const plain: Settings = { maxNew: 9, minNew: 0, penalty: 1, lengthPenalty: 1 };

async function bestOf(given: DecodeCase, logits: Float32Array, chunk: number, softwareAdapter: boolean) {
  const { vocabulary, items } = given;
  const state = await decodeState(rig, given);
  const tensor = await rig.tensor("logits", [items.length, vocabulary], logits);
  const cut = { chunk, chunks: Math.ceil(vocabulary / chunk) };
  const [best] = await rig.run((k) => [greedyScores(asFamily(k, softwareAdapter), tensor, state, cut)]);
  return Array.from({ length: items.length * cut.chunks }, (_, i) => ({
    score: fromFloatBits(best?.[2 * i]),
    id: best?.[2 * i + 1] ?? -1,
  }));
}

async function compare(given: DecodeCase, logits: Float32Array, chunk: number, softwareAdapter: boolean) {
  const { vocabulary, items, stopIds } = given;
  const got = await bestOf(given, logits, chunk, softwareAdapter);
  const expected = items.flatMap((item, row) => {
    const own = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
    const scores = penalised(own, new Set(item.seen), item.generated ?? 0, item.settings, stopIds);
    return Array.from({ length: Math.ceil(vocabulary / chunk) }, (_, c) => {
      const [score, at] = ranked(scores.subarray(c * chunk, (c + 1) * chunk))[0] ?? [Number.NaN, -1];
      return { score, id: c * chunk + at };
    });
  });
  assert.deepEqual(
    got.map(({ id }) => id),
    expected.map(({ id }) => id),
  );
  expectClose(
    got.map(({ score }) => score),
    expected.map(({ score }) => score),
    { absolute: 0, relative: 3e-7, reason: "one f32 product or quotient, which WGSL allows 2.5 ulp" },
  );
}

for (const { softwareAdapter, family } of families) {
  for (const [vocabulary, chunk] of [
    [2, 64],
    [31, 64],
    [33, 16],
    [64, 64],
    [97, 32],
    [1025, 1024],
    [2500, 1024],
  ] as const) {
    test(`${vocabulary} ids in chunks of ${chunk}: penalties, seen ids, ends too early, ${family}`, async () => {
      const stopIds = [1, vocabulary - 1];
      const seen = Array.from({ length: vocabulary }, (_, id) => id).filter((id) => id % 3 === 0 || id === 31);
      const given: DecodeCase = {
        beams: 1,
        newRows: 4,
        vocabulary,
        stopIds,
        items: [
          { settings: plain },
          { settings: { ...plain, penalty: 1.5 }, seen },
          { settings: { ...plain, penalty: 0.6 }, seen, generated: 2 },
          { settings: { ...plain, minNew: 3, penalty: 2 }, seen: [vocabulary - 1], generated: 2 },
          { settings: { ...plain, minNew: 3 }, generated: 3 },
        ],
      };
      const logits = randomValues(5 * vocabulary, vocabulary, 4);
      for (let row = 0; row < 5; row++) {
        // The ids that end would win everywhere they may.
        for (const id of stopIds) logits[row * vocabulary + id] = 5 + id / vocabulary;
      }
      await compare(given, logits, chunk, softwareAdapter);
      // All scores below zero: the penalty multiplies.
      await compare(
        given,
        logits.map((value) => value - 6),
        chunk,
        softwareAdapter,
      );
    });
  }

  test(`of equal scores the lowest id wins, in every lane, ${family}`, async () => {
    const vocabulary = 300;
    const given: DecodeCase = { beams: 1, newRows: 4, vocabulary, stopIds: [], items: [{ settings: plain }] };
    for (const winners of [
      [0, 299],
      [5, 6],
      [63, 64],
      [127, 128, 129],
      [13, 5],
      [200, 136, 72],
    ]) {
      const logits = new Float32Array(vocabulary).fill(-1);
      for (const id of winners) logits[id] = 2;
      await compare(given, logits, 512, softwareAdapter);
      await compare(given, logits, 128, softwareAdapter);
    }
    await compare(given, new Float32Array(vocabulary).fill(0), 64, softwareAdapter);
    await compare(given, new Float32Array(vocabulary).fill(-3e38), 512, softwareAdapter);
  });

  test(`all ids of a chunk forbidden: the lowest of them; not a number: no id, ${family}`, async () => {
    const forbidden: DecodeCase = {
      beams: 1,
      newRows: 4,
      vocabulary: 4,
      stopIds: [2, 3],
      items: [{ settings: { ...plain, minNew: 2 } }],
    };
    const [low, high] = await bestOf(forbidden, Float32Array.of(1, 2, 3, 4), 2, softwareAdapter);
    assert.deepEqual(low, { score: 2, id: 1 });
    assert.deepEqual(high, { score: Math.fround(lowest), id: 2 });
    const numbers: DecodeCase = { ...forbidden, stopIds: [], items: [{ settings: plain }] };
    const [broken, partly] = await bestOf(
      numbers,
      Float32Array.of(Number.NaN, Number.NaN, Number.NaN, -7),
      2,
      softwareAdapter,
    );
    assert.equal(broken?.id, 0xffffffff);
    assert.deepEqual(partly, { score: -7, id: 3 });
    const ends = await bestOf(forbidden, new Float32Array(4).fill(Number.NaN), 2, softwareAdapter);
    assert.deepEqual(
      ends.map(({ id }) => id),
      [0xffffffff, 0xffffffff],
    );
  });
}
