import assert from "node:assert/strict";
import { test } from "node:test";
import { sampleLimits } from "../../src/kernels/sample-limits.ts";
import { keptIds, probabilities, type Sampling } from "../reference/sampling.ts";
import { fromFloatBits } from "./decode-rig.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";
import { plain, samplingTensor, warperCases } from "./sample-rig.ts";

const rig = await openRig();

type Limits = Pick<Sampling, "topK" | "topP">;

/** The order of f32 as u32, 0 and -0 alike. */
function keyOf(score: number): number {
  const bits = new Uint32Array(Float32Array.of(score === 0 ? 0 : score).buffer)[0] ?? 0;
  return (bits >>> 31 === 1 ? ~bits : bits | 0x80000000) >>> 0;
}

/** The ids that each row keeps, by the kernel's limits. Rows of one length. */
async function keptOf(
  rows: readonly (readonly number[])[],
  asked: readonly Limits[],
  softwareAdapter: boolean,
  chunk = 16,
): Promise<number[][]> {
  const width = rows[0]?.length ?? 0;
  const chunks = Math.ceil(width / chunk);
  const cutHighs = rows.map((row) =>
    Array.from({ length: chunks }, (_, c) => Math.max(...row.slice(c * chunk, (c + 1) * chunk))),
  );
  const scores = await rig.tensor("scores", [rows.length, width], rows.flat());
  const highs = await rig.tensor("highs", [rows.length, chunks], cutHighs.flat());
  const sampling = await samplingTensor(rig, { items: asked.map((each) => ({ settings: plain, ...each })) });
  const [limits] = await rig.run((k) => [sampleLimits(asFamily(k, softwareAdapter), { scores, highs }, sampling)]);
  return rows.map((row, r) => {
    const [key = 0, first = 0, high] = limits?.subarray(3 * r, 3 * r + 3) ?? [];
    assert.equal(fromFloatBits(high), Math.max(...row), "the highest score");
    return Array.from(row.keys()).filter((id) => {
      const own = keyOf(Math.fround(row[id] ?? 0));
      return own > key || (own === key && id >= first);
    });
  });
}

const cases = warperCases();

test("the reference keeps what transformers keeps, with its probabilities", () => {
  assert.ok(cases.length >= 130);
  for (const { name, logits, temperature, topK, topP, kept, probabilities: expected } of cases) {
    const scores = logits.map((logit) => logit / temperature);
    const ids = keptIds(scores, { topK, topP });
    const label = `${name}, temperature ${temperature}, top-k ${topK}, top-p ${topP}`;
    assert.deepEqual(
      [...ids].sort((a, b) => a - b),
      kept,
      label,
    );
    const all = probabilities(scores, ids);
    expectClose(
      kept.map((id) => all[id] ?? Number.NaN),
      expected,
      { absolute: 1e-6, relative: 1e-5, reason: "transformers' are f32" },
    );
  }
});

for (const { softwareAdapter, family } of families) {
  test(`the sets that transformers keeps, rows of one length together, ${family}`, async () => {
    const lengths = new Set(cases.map(({ logits }) => logits.length));
    assert.ok(lengths.size >= 10);
    for (const length of lengths) {
      const group = cases.filter(({ logits }) => logits.length === length);
      const scores = group.map(({ logits, temperature }) =>
        logits.map((logit) => Math.fround(Math.fround(logit) / Math.fround(temperature))),
      );
      const kept = await keptOf(scores, group, softwareAdapter);
      for (const [i, { name, temperature, topK, topP, kept: expected }] of group.entries()) {
        const label = `${length}: ${name}, temperature ${temperature}, top-k ${topK}, top-p ${topP}`;
        assert.deepEqual(kept[i], expected, label);
      }
    }
  });

  test(`a vocabulary of 50,000: the sums of many small probabilities, ${family}`, async () => {
    // A flat tail of half the mass: what is lost of it would move the limit of top-p by hundreds of ids.
    const width = 50_000;
    const row = Array.from(randomValues(width, 4, 0.5), (value) => Math.fround(value - 11));
    row[31_000] = 0;
    const asked = [
      { topK: 0, topP: 0.7 },
      { topK: 0, topP: 0.97 },
      { topK: 20_000, topP: 1 },
      { topK: 20_000, topP: 0.9 },
    ];
    const kept = await keptOf(new Array(asked.length).fill(row), asked, softwareAdapter, 1024);
    for (const [i, each] of asked.entries()) {
      const expected = keptIds(row, each).size;
      const miss = Math.abs((kept[i]?.length ?? 0) - expected);
      // f32 sums off by 2e-6 of the total; an id has at least 3e-6 of it.
      assert.ok(miss <= (each.topP < 1 ? 3 : 0), `top-k ${each.topK}, top-p ${each.topP}: ${miss} ids off ${expected}`);
    }
  });

  test(`probabilities that a running sum of 1 would round away are summed apart from it, ${family}`, async () => {
    // Each is 1.4 last places of 1: added to it one by one, 0.4 of each is lost, and the limit moves by thousands of ids.
    const width = 50_001;
    const row = [0, ...new Array<number>(width - 1).fill(Math.fround(Math.log(1.4 * 2 ** -23)))];
    const asked = { topK: 0, topP: 0.9959 };
    const [kept] = await keptOf([row], [asked], softwareAdapter, 1024);
    const miss = Math.abs((kept?.length ?? 0) - keptIds(row, asked).size);
    assert.ok(miss <= 64, `${miss} ids off; those of the block that has the 1 may be lost`);
  });

  test(`scores that are forbidden never count, and weigh nothing, ${family}`, async () => {
    const low = -3.4028234663852886e38;
    const row = [low, 1, low, 1, 1, low];
    const kept = await keptOf(
      [row, row],
      [
        { topK: 2, topP: 1 },
        { topK: 0, topP: 0.5 },
      ],
      softwareAdapter,
    );
    assert.deepEqual(kept, [
      [1, 3, 4],
      [3, 4],
    ]);
  });
}
