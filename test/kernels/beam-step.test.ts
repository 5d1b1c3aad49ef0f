import assert from "node:assert/strict";
import { test } from "node:test";
import { advance } from "../../src/kernels/advance.ts";
import { beamCandidates } from "../../src/kernels/beam-candidates.ts";
import { beamScores } from "../../src/kernels/beam-scores.ts";
import { beamStep } from "../../src/kernels/beam-step.ts";
import { type DecodeState, endedHead } from "../../src/kernels/decode-state.ts";
import { logSumExp } from "../../src/kernels/log-sum-exp.ts";
import { BeamSearch, type Settings } from "../reference/decoding.ts";
import { type DecodeCase, decodeState, floatBits, fromFloatBits } from "./decode-rig.ts";
import { asFamily, families } from "./families.ts";
import { openRig, randomValues } from "./harness.ts";

const rig = await openRig();
const none = 0xffffffff;

const close = (got: number, want: number, what: string) =>
  assert.ok(Math.abs(got - want) <= 2e-5 * Math.max(1, Math.abs(want)), `${what}: got ${got}, expected ${want}`);

/** Everything that the state says of an item, against the reference after the same steps. */
async function compareItem(state: DecodeState, item: number, search: BeamSearch, what: string): Promise<void> {
  const { beams, newRows } = state;
  const width = 2 + beams;
  const progress = (await rig.read(state.progress)).subarray(item * width, (item + 1) * width);
  assert.deepEqual([progress[0], progress[1]], [search.generated, search.done ? 1 : 0], `${what}: generated, done`);
  const choice = (await rig.read(state.choice)).subarray(item * beams * 2, (item + 1) * beams * 2);
  for (const [b, { ids, score }] of search.running.entries()) {
    close(fromFloatBits(progress[2 + b]), score, `${what}: running score ${b}`);
    // What scores -1e9 is a tie of everything that ended: which of them stands there is nobody's business.
    if (score < -1e8) continue;
    assert.deepEqual([...choice.subarray(2 * b, 2 * b + 2)], [ids.at(-1), search.parents[b]], `${what}: choice ${b}`);
  }
  const records = await rig.read(state.ended);
  for (const [b, { ids, score, real }] of search.ended.entries()) {
    const from = (item * beams + b) * (endedHead + newRows);
    const record = records.subarray(from, from + endedHead + newRows);
    assert.equal(record[0], real ? 1 : 0, `${what}: ended ${b} is real`);
    close(fromFloatBits(record[1]), score, `${what}: ended score ${b}`);
    if (real) {
      assert.equal(record[2], ids.length, `${what}: ended length ${b}`);
      assert.deepEqual([...record.subarray(endedHead, endedHead + ids.length)], ids, `${what}: ended ids ${b}`);
    }
  }
}

/** A whole search over random logits: the kernels step by step, and the reference beside each item. */
async function search(
  beams: number,
  stopIds: readonly number[],
  items: readonly { settings: Settings; seen: readonly number[]; eagerness: number }[],
  seed: number,
  softwareAdapter: boolean,
): Promise<number> {
  const vocabulary = 45;
  const newRows = 16;
  const given: DecodeCase = { beams, newRows, vocabulary, stopIds, items, positions: newRows + 4, promptSlots: 90 };
  const state = await decodeState(rig, given);
  const keep = Math.max(2, 1 + stopIds.length) * beams;
  const cut = { chunk: 16, chunks: 3 };
  const logits = await rig.tensor("logits", [items.length * beams, vocabulary]);
  const list = await rig.gpu.record("search", (recorder) => {
    const k = asFamily(recorder, softwareAdapter);
    const scores = beamScores(k, logits, logSumExp(k, logits, cut), state, cut);
    beamStep(k, beamCandidates(k, scores, beams, keep, cut), state);
    advance(k, state);
  });
  const searches = items.map(({ settings, seen }) => new BeamSearch(beams, settings, stopIds, seen));
  let early = 0;
  for (let step = 0; step < newRows; step++) {
    const values = randomValues(items.length * beams * vocabulary, seed * 100 + step, 2.5);
    for (const [item, { eagerness }] of items.entries()) {
      for (let beam = 0; beam < beams; beam++) {
        // The first step has one row of logits for all beams.
        const at = (item * beams + beam) * vocabulary;
        if (step === 0) values.copyWithin(at, item * beams * vocabulary, (item * beams + 1) * vocabulary);
        for (const id of stopIds) values[at + id] = (values[at + id] ?? 0) + (step === 0 && beam > 0 ? 0 : eagerness);
      }
    }
    await rig.gpu.upload(logits, new Uint8Array(values.buffer));
    await rig.gpu.submit([list]);
    for (const [item, reference] of searches.entries()) {
      if (!reference.done) {
        const own = Array.from({ length: beams }, (_, beam) => {
          const at = (item * beams + beam) * vocabulary;
          return values.subarray(at, at + vocabulary);
        });
        reference.step(own);
        if (reference.done && reference.generated < reference.settings.maxNew) early++;
      }
      await compareItem(state, item, reference, `${beams} beams, step ${step}, item ${item}`);
    }
  }
  assert.ok(searches.every(({ done }) => done));
  list.destroy();
  return early;
}

const lengthPenalties = [-1, 0, 0.5, 1, 2];

for (const { softwareAdapter, family } of families) {
  for (const beams of [1, 2, 3, 4, 5, 6]) {
    test(`${beams} beams over random logits: penalties, ends, lengths, ${family}`, async () => {
      let early = 0;
      for (const stopIds of [[7], [3, 40, 44], []]) {
        const items = lengthPenalties.map((lengthPenalty, i) => ({
          settings: {
            maxNew: [16, 9, 16, 12, 16][i] ?? 16,
            minNew: [0, 4, 2, 0, 6][i] ?? 0,
            penalty: [1, 1.4, 0.8, 1, 1.2][i] ?? 1,
            lengthPenalty,
          },
          seen: [1, 2, 44],
          eagerness: [1, 2, 0.5, 1.5, 3][i] ?? 1,
        }));
        early += await search(beams, stopIds, items, beams * 10 + stopIds.length, softwareAdapter);
      }
      assert.ok(early >= 3, `expected at least 3 of 10 searches to end before maxNew, got ${early}`);
    });
  }

  /** One step from a given state and candidates. */
  const step = async (given: DecodeCase, candidates: readonly (readonly [number, number])[], reference: BeamSearch) => {
    const state = await decodeState(rig, given);
    const history = reference.running.flatMap(({ ids }) => [...ids, ...new Array(given.newRows - ids.length).fill(0)]);
    await rig.gpu.upload(state.history, new Uint8Array(Uint32Array.from(history).buffer));
    const ended = reference.ended.flatMap(({ ids, score, real }) => {
      return [real ? 1 : 0, floatBits(score), ids.length, ...ids, ...new Array(given.newRows - ids.length).fill(0)];
    });
    await rig.gpu.upload(state.ended, new Uint8Array(Uint32Array.from(ended).buffer));
    const flat = candidates.flatMap(([score, place]) => [floatBits(score), place]);
    const tensor = await rig.tensor("candidates", [1, candidates.length, 2], flat, "u32");
    await rig.run((k) => {
      beamStep(asFamily(k, softwareAdapter), tensor, state);
      return [];
    });
    return state;
  };

  const settings: Settings = { maxNew: 8, minNew: 0, penalty: 1, lengthPenalty: 1 };
  const midway = (own: Settings, ended: BeamSearch["ended"]) => {
    const reference = new BeamSearch(3, own, [9], []);
    reference.generated = 2;
    reference.running = [
      { ids: [1, 2], score: -1 },
      { ids: [3, 4], score: -2 },
      { ids: [5, 6], score: -3 },
    ];
    reference.ended = ended;
    return reference;
  };
  /** The state that `midway` describes, before its history and its ended are written. */
  const midwayCase = (own: Settings, done = false): DecodeCase => ({
    beams: 3,
    newRows: 8,
    vocabulary: 10,
    stopIds: [9],
    items: [{ settings: own, generated: 2, running: [-1, -2, -3], done }],
  });
  const nobody = { ids: [], score: -1e9, real: false };
  const cases: [string, Settings, BeamSearch["ended"], [number, number][]][] = [
    [
      "an end below the first `beams` candidates does not count",
      settings,
      [nobody, nobody, nobody],
      [
        [-2, 1],
        [-2.5, 21],
        [-3, 12],
        [-3.5, 9],
        [-4, 3],
        [-4.5, 19],
      ],
    ],
    [
      "ends first, middle and last of the first `beams`",
      settings,
      [nobody, nobody, nobody],
      [
        [-2, 9],
        [-2.5, 21],
        [-3, 19],
        [-3.5, 1],
        [-4, 3],
        [-4.5, 4],
      ],
    ],
    [
      "equal scores: the ended so far stay in front, then candidates in order",
      settings,
      [{ ids: [7], score: -1, real: true }, nobody, nobody],
      [
        [-3, 9],
        [-3, 19],
        [-3, 29],
        [-3, 1],
        [-3, 2],
        [-3, 3],
      ],
    ],
    [
      "all ended and nothing better ahead: done",
      settings,
      [
        { ids: [7], score: -0.5, real: true },
        { ids: [8], score: -0.6, real: true },
        { ids: [8, 1], score: -0.7, real: true },
      ],
      [
        [-2.2, 1],
        [-2.5, 21],
        [-3, 12],
        [-3.5, 9],
        [-4, 3],
        [-4.5, 19],
      ],
    ],
    [
      "all ended and something as good ahead, to the last digit: done",
      settings,
      [
        { ids: [7], score: -0.25, real: true },
        { ids: [8], score: -0.5, real: true },
        { ids: [8, 1], score: -0.75, real: true },
      ],
      [
        [-2.25, 1],
        [-2.5, 21],
        [-3, 12],
        [-3.5, 9],
        [-4, 3],
        [-4.5, 19],
      ],
    ],
    [
      "all ended but a longer one could win: not done",
      settings,
      [
        { ids: [7], score: -0.5, real: true },
        { ids: [8], score: -0.6, real: true },
        { ids: [8, 1], score: -0.8, real: true },
      ],
      [
        [-2.2, 1],
        [-2.5, 21],
        [-3, 12],
        [-3.5, 9],
        [-4, 3],
        [-4.5, 19],
      ],
    ],
    [
      "length penalty -1 multiplies",
      { ...settings, lengthPenalty: -1 },
      [
        { ids: [7], score: -5, real: true },
        { ids: [8], score: -6, real: true },
        { ids: [8, 1], score: -6.5, real: true },
      ],
      [
        [-2, 9],
        [-2.1, 21],
        [-3, 12],
        [-3.5, 9],
        [-4, 3],
        [-4.5, 19],
      ],
    ],
    [
      "the last step: the first `beams` end whatever they are",
      { ...settings, maxNew: 3 },
      [{ ids: [7], score: -0.9, real: true }, nobody, nobody],
      [
        [-2.2, 1],
        [-2.5, 21],
        [-3, 12],
        [-3.5, 9],
        [-4, 3],
        [-4.5, 19],
      ],
    ],
    [
      "every candidate ends: done",
      settings,
      [nobody, nobody, nobody],
      [
        [-2.2, 9],
        [-2.5, 19],
        [-3, 29],
        [-3.5, 9],
        [-4, 19],
        [-4.5, 29],
      ],
    ],
  ];
  for (const [what, own, ended, candidates] of cases) {
    test(`${what}, ${family}`, async () => {
      const reference = midway(own, ended);
      const state = await step(midwayCase(own), candidates, reference);
      reference.choose(candidates, 10);
      await compareItem(state, 0, reference, what);
    });
  }

  test(`an item that was done stays as it is, ${family}`, async () => {
    const reference = midway(settings, [{ ids: [7], score: -0.9, real: true }, nobody, nobody]);
    const state = await step(
      midwayCase(settings, true),
      [
        [-0.1, 9],
        [-0.2, 19],
        [-0.3, 29],
        [-1, 1],
        [-1, 2],
        [-1, 3],
      ],
      reference,
    );
    const records = await rig.read(state.ended);
    assert.deepEqual([...records.subarray(0, 4)], [1, floatBits(-0.9), 1, 7]);
    assert.deepEqual([...(await rig.read(state.progress))].slice(0, 3), [2, 1, floatBits(-1)]);
  });

  test(`no candidate at all: done, and nothing really ended, ${family}`, async () => {
    const reference = midway(settings, [nobody, nobody, nobody]);
    const state = await step(
      midwayCase(settings),
      Array.from({ length: 6 }, () => [-3.4e38, none] as const),
      reference,
    );
    assert.equal((await rig.read(state.progress))[1], 1);
    assert.equal((await rig.read(state.ended))[0], 0);
  });
}
