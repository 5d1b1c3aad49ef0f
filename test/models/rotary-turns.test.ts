// Against what torch 2.15 gives for transformers' LlamaRotaryEmbedding: base, width, then frequencies, cosines and sines.

import assert from "node:assert/strict";
import { test } from "node:test";
import { rotaryFrequencies, rotaryTurns } from "../../src/models/rotary-turns.ts";

/** Pairs 0, 1, a middle one and the last, at position 2047. */
const cases = [
  {
    width: 128,
    base: 10000,
    frequencies: [1, 0.8659643530845642, 0.009999999776482582, 0.00011547819303814322],
    cosines: [0.24971525371074677, 0.717373251914978, -0.0496266707777977, 0.9721912145614624],
    sines: [-0.968319296836853, 0.6966890096664429, 0.9987678527832031, 0.23418858647346497],
  },
  {
    width: 22,
    base: 10000,
    frequencies: [1, 0.4328761398792267, 0.01519910991191864, 0.00023101292026694864],
    cosines: [0.24971525371074677, 0.985863447189331, 0.9543414115905762, 0.8902587294578552],
    sines: [-0.968319296836853, 0.16755081713199615, -0.29871806502342224, 0.4554551839828491],
  },
  {
    width: 128,
    base: 500000,
    frequencies: [1, 0.8146172165870667, 0.001414213445968926, 2.4551407022954663e-6],
    cosines: [0.24971525371074677, -0.7874011397361755, -0.9697241187095642, 0.9999873638153076],
    sines: [-0.968319296836853, 0.6164409518241882, 0.2442030906677246, 0.0050256522372365],
  },
] as const;

const lastPlace = 6e-8;

for (const { width, base, frequencies, cosines, sines } of cases) {
  test(`width ${width}, base ${base}: the angles of transformers, in f32`, () => {
    const pairs = [0, 1, Math.floor(width / 4), width / 2 - 1];
    const own = rotaryFrequencies(width, base);
    assert.equal(own.length, width / 2);
    assert.deepEqual(
      pairs.map((i) => own[i]),
      [...frequencies],
    );
    const turns = rotaryTurns(own, 2048);
    assert.equal(turns.length, 2048 * width);
    for (const [at, i] of pairs.entries()) {
      const [cosine = Number.NaN, sine = Number.NaN] = turns.subarray(2047 * width + 2 * i);
      assert.ok(Math.abs(cosine - (cosines[at] ?? 0)) <= lastPlace, `cosine ${i}: ${cosine}`);
      assert.ok(Math.abs(sine - (sines[at] ?? 0)) <= lastPlace, `sine ${i}: ${sine}`);
    }
    assert.deepEqual([...turns.subarray(0, 4)], [1, 0, 1, 0], "position 0 turns nothing");
  });
}
