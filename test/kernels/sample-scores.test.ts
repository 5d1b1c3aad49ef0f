import assert from "node:assert/strict";
import { test } from "node:test";
import { sampleScores } from "../../src/kernels/sample-scores.ts";
import { lowest, penalised } from "../reference/decoding.ts";
import { decodeState } from "./decode-rig.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";
import { plain, type SampleCase, samplingTensor } from "./sample-rig.ts";

const rig = await openRig();

async function scoresOf(given: SampleCase, logits: Float32Array, chunk: number, softwareAdapter: boolean) {
  const { vocabulary, items } = given;
  const state = await decodeState(rig, given);
  const sampling = await samplingTensor(rig, given);
  const tensor = await rig.tensor("logits", [items.length, vocabulary], logits);
  const cut = { chunk, chunks: Math.ceil(vocabulary / chunk) };
  const [scores, highs] = await rig.run((k) => {
    const made = sampleScores(asFamily(k, softwareAdapter), tensor, state, sampling, cut);
    return [made.scores, made.highs];
  });
  return { scores: [...(scores ?? [])], highs: [...(highs ?? [])] };
}

for (const { softwareAdapter, family } of families) {
  for (const [vocabulary, chunk] of [
    [1, 64],
    [33, 16],
    [97, 32],
    [1025, 1024],
  ] as const) {
    test(`${vocabulary} ids in chunks of ${chunk}: penalties, ends too early, temperature, ${family}`, async () => {
      const stopIds = vocabulary === 1 ? [] : [1, vocabulary - 1];
      const seen = Array.from({ length: vocabulary }, (_, id) => id).filter((id) => id % 3 === 0);
      const given: SampleCase = {
        beams: 1,
        newRows: 4,
        vocabulary,
        stopIds,
        items: [
          { settings: plain },
          { settings: plain, temperature: 0.7 },
          { settings: { ...plain, penalty: 1.5 }, seen, temperature: 1.9 },
          { settings: { ...plain, minNew: 3, penalty: 0.8 }, seen, generated: 2, temperature: 0.3 },
          { settings: { ...plain, minNew: 3 }, generated: 3 },
        ],
      };
      const logits = randomValues(given.items.length * vocabulary, vocabulary, 4);
      const { scores, highs } = await scoresOf(given, logits, chunk, softwareAdapter);
      const expected = given.items.map((item, row) => {
        const own = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
        const each = penalised(own, new Set(item.seen), item.generated ?? 0, item.settings, stopIds);
        return Array.from(each, (score) => (score === lowest ? lowest : score / (item.temperature ?? 1)));
      });
      expectClose(scores, expected.flat(), {
        absolute: 0,
        relative: 1e-6,
        reason: "two f32 products or quotients, which WGSL allows 2.5 ulp each",
      });
      const chunks = Math.ceil(vocabulary / chunk);
      const tops = given.items.flatMap((_, row) =>
        Array.from({ length: chunks }, (_, c) =>
          Math.max(
            ...scores.slice(row * vocabulary + c * chunk, row * vocabulary + Math.min(vocabulary, (c + 1) * chunk)),
          ),
        ),
      );
      assert.deepEqual(highs, tops, "the highest of each chunk is exact");
    });
  }

  test(`not a number scores the lowest, a tiny temperature stays finite, ${family}`, async () => {
    const given: SampleCase = {
      beams: 1,
      newRows: 1,
      vocabulary: 4,
      stopIds: [],
      items: [{ settings: plain }, { settings: plain, temperature: 1e-6 }],
    };
    const logits = Float32Array.of(Number.NaN, 1, -2, Number.NaN, 1e34, -1e34, 0, 1);
    const { scores, highs } = await scoresOf(given, logits, 4, softwareAdapter);
    const low = Math.fround(lowest);
    assert.deepEqual(scores.slice(0, 4), [low, 1, -2, low]);
    assert.deepEqual(scores.slice(4, 7), [Math.fround(3e38), Math.fround(-3e38), 0]);
    assert.deepEqual(highs, [1, Math.fround(3e38)]);
  });
}
