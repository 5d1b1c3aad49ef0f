import assert from "node:assert/strict";
import { test } from "node:test";
import { beamCandidates } from "../../src/kernels/beam-candidates.ts";
import { ranked } from "../reference/decoding.ts";
import { floatBits, fromFloatBits } from "./decode-rig.ts";
import { asFamily, families } from "./families.ts";
import { openRig, randomValues } from "./harness.ts";

const rig = await openRig();

async function compare(
  items: number,
  beams: number,
  vocabulary: number,
  chunk: number,
  keep: number,
  values: Float32Array,
  softwareAdapter: boolean,
) {
  const cut = { chunk, chunks: Math.ceil(vocabulary / chunk) };
  const heads: number[] = [];
  for (let row = 0; row < items * beams; row++) {
    for (let c = 0; c < cut.chunks; c++) {
      const from = row * vocabulary + c * chunk;
      const part = values.subarray(from, row * vocabulary + Math.min(vocabulary, (c + 1) * chunk));
      const [score, at] = ranked(part)[0] ?? [Number.NaN, -1];
      heads.push(floatBits(score), c * chunk + at);
    }
  }
  const scores = await rig.tensor("scores", [items * beams, vocabulary], values);
  const best = await rig.tensor("best", [items * beams, cut.chunks, 2], heads, "u32");
  const [got] = await rig.run((k) => [
    beamCandidates(asFamily(k, softwareAdapter), { scores, best }, beams, keep, cut),
  ]);
  for (let item = 0; item < items; item++) {
    const own = values.subarray(item * beams * vocabulary, (item + 1) * beams * vocabulary);
    const mine = Array.from({ length: keep }, (_, k) => {
      const at = 2 * (item * keep + k);
      return [fromFloatBits(got?.[at]), got?.[at + 1]];
    });
    assert.deepEqual(mine, ranked(own).slice(0, keep), `item ${item}`);
  }
}

for (const { softwareAdapter, family } of families) {
  for (const [items, beams, vocabulary, chunk, keep] of [
    [1, 2, 5, 8, 4],
    [3, 3, 41, 16, 6],
    [2, 5, 97, 32, 10],
    [2, 6, 1025, 1024, 12],
    [1, 4, 3000, 1024, 12],
    [2, 1, 70, 64, 3],
    [1, 32, 50, 16, 96],
  ] as const) {
    test(`${keep} of ${beams} x ${vocabulary} in chunks of ${chunk}, ${items} items, ${family}`, async () => {
      const count = items * beams * vocabulary;
      const random = randomValues(count, vocabulary, 9);
      await compare(items, beams, vocabulary, chunk, keep, random, softwareAdapter);
      // Few distinct values: nearly everything is a tie.
      await compare(items, beams, vocabulary, chunk, keep, random.map(Math.round), softwareAdapter);
      await compare(items, beams, vocabulary, chunk, keep, random.fill(-1e9), softwareAdapter);
    });
  }

  test(`all from one beam, all from one chunk, in ascending and descending order, ${family}`, async () => {
    const up = Float32Array.from({ length: 3 * 200 }, (_, i) => (i >= 200 && i < 400 ? i : -i));
    await compare(1, 3, 200, 64, 8, up, softwareAdapter);
    await compare(
      1,
      3,
      200,
      64,
      8,
      up.map((value) => -value),
      softwareAdapter,
    );
  });

  test(`every id taken: nothing is left, ${family}`, async () => {
    const scores = await rig.tensor("scores", [2, 3], [1, 2, 3, -1, -2, Number.NaN]);
    const best = await rig.tensor("best", [2, 1, 2], [floatBits(3), 2, floatBits(-1), 0], "u32");
    const [got] = await rig.run((k) => [
      beamCandidates(asFamily(k, softwareAdapter), { scores, best }, 2, 7, { chunk: 4, chunks: 1 }),
    ]);
    const none = 0xffffffff;
    assert.deepEqual(
      [...(got ?? [])].filter((_, i) => i % 2 === 1),
      [2, 1, 0, 3, 4, none, none],
    );
  });
}
