import assert from "node:assert/strict";
import { test } from "node:test";
import { none } from "../../src/kernels/decode-state.ts";
import { rotary } from "../../src/kernels/rotary.ts";
import { rotaryFrequencies, rotaryTurns } from "../../src/models/rotary-turns.ts";
import { type RotaryCase, rotaryReference } from "../reference/rotary.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();

/** Angles are f32: at position p the last place of p. */
const tolerance = { absolute: 2e-5, relative: 1e-6, reason: "an angle below 256 in f32, times values up to 1" };

/** Positions between columns that hold others. */
async function run(given: RotaryCase, { before = 0, behind = 0 } = {}): Promise<ArrayLike<number> | undefined> {
  const { heads, parts, partWidth, base, positions } = given;
  const rows = positions.length;
  const width = heads * parts * partWidth;
  const count = 1 + Math.max(0, ...positions.flatMap((own) => own ?? []));
  const turns = rotaryTurns(rotaryFrequencies(partWidth, base), count);
  const table = await rig.tensor("turns", [count, partWidth], turns);
  const x = await rig.tensor("x", [rows, width], given.x);
  const other = (columns: number) => new Array(columns).fill(count - 1);
  const words = positions.flatMap((own) => [
    ...other(before),
    ...(own ?? new Array(parts).fill(none)),
    ...other(behind),
  ]);
  const tensor = await rig.tensor("positions", [rows, before + parts + behind], words, "u32");
  const [y] = await rig.run((k) => [
    rotary(k, x, table, { rows: tensor, column: before }, { heads, headWidth: parts * partWidth }),
  ]);
  return y;
}

for (const [heads, parts, partWidth] of [
  [1, 1, 2],
  [2, 1, 6],
  [3, 1, 22],
  [4, 1, 128],
  [1, 2, 4],
  [3, 2, 10],
  [2, 2, 64],
  [2, 3, 6],
] as const) {
  test(`${heads} heads of ${parts} parts of ${partWidth}`, async () => {
    const rows = 7;
    const x = randomValues(rows * heads * parts * partWidth, 1);
    const positions = Array.from({ length: rows }, (_, r) =>
      r === 3 ? null : Array.from({ length: parts }, (_, p) => (r * 41 + p * 67) % 251),
    );
    const given = { heads, parts, partWidth, base: 10000, x, positions };
    expectClose(await run(given), rotaryReference(given), tolerance);
  });
}

test("positions are read from their column: a cursor's second, and two of four", async () => {
  const one = { heads: 2, parts: 1, partWidth: 8, base: 100, x: randomValues(48, 2), positions: [[5], [0], [17]] };
  expectClose(await run(one, { before: 1, behind: 2 }), rotaryReference(one), tolerance);
  const two = {
    heads: 2,
    parts: 2,
    partWidth: 4,
    base: 100,
    x: randomValues(32, 3),
    positions: [
      [5, 2],
      [9, 0],
    ],
  };
  expectClose(await run(two, { before: 2 }), rotaryReference(two), tolerance);
});

test("position 0 leaves every bit, and the base counts", async () => {
  const x = randomValues(24, 4);
  const still = { heads: 2, parts: 1, partWidth: 12, base: 10000, x, positions: [[0]] };
  assert.deepEqual(Array.from((await run(still)) ?? []), [...x]);
  for (const base of [10000, 500000]) {
    const given = { ...still, base, positions: [[200]] };
    expectClose(await run(given), rotaryReference(given), tolerance);
  }
});

test("the first columns of wider rows", async () => {
  const [rows, heads, partWidth, wider] = [5, 2, 6, 19];
  const x = randomValues(rows * wider, 6);
  const own = Float32Array.from({ length: rows * 12 }, (_, i) => x[Math.floor(i / 12) * wider + (i % 12)] ?? 0);
  const positions = Array.from({ length: rows }, (_, r) => (r === 2 ? null : [3 * r]));
  const given = { heads, parts: 1, partWidth, base: 10000, x: own, positions };
  const table = await rig.tensor("turns", [13, 6], rotaryTurns(rotaryFrequencies(6, 10000), 13));
  const words = positions.flatMap((place) => place ?? [none]);
  const places = await rig.tensor("positions", [rows, 1], words, "u32");
  const tensor = await rig.tensor("x", [rows, wider], x);
  const [y] = await rig.run((k) => [rotary(k, tensor, table, { rows: places, column: 0 }, { heads, headWidth: 6 })]);
  expectClose(y, rotaryReference(given), tolerance);
});

test("more rows than one dimension holds", async () => {
  const rows = 65535 + 3;
  const positions = Array.from({ length: rows }, (_, r) => [r % 7]);
  const given = { heads: 1, parts: 1, partWidth: 2, base: 10000, x: randomValues(2 * rows, 5), positions };
  expectClose(await run(given), rotaryReference(given), tolerance);
});

test("wrong shapes are named", async () => {
  const x = await rig.tensor("x", [2, 12], new Array(24).fill(1));
  const table = (width: number) => rig.tensor("turns", [4, width], new Array(4 * width).fill(1));
  const cursors = await rig.tensor("cursors", [2, 4], new Array(8).fill(1), "u32");
  const few = await rig.tensor("few", [1, 4], new Array(4).fill(1), "u32");
  const four = await table(4);
  const three = await table(3);
  const launch = (turns: typeof four, rows: typeof cursors, column: number, heads: number, headWidth = 12 / heads) =>
    rig.run((k) => [rotary(k, x, turns, { rows, column }, { heads, headWidth })]);
  await assert.rejects(launch(four, cursors, 0, 2), /ShapeError: rotary: expected parts.* head of 6, got parts of 4/);
  await assert.rejects(launch(three, cursors, 0, 1), /expected parts of an even width.*, got parts of 3/);
  await assert.rejects(launch(four, cursors, 0, 4, 4), /expected 4 heads of 4 within a row of x, got 12 columns/);
  await assert.rejects(launch(four, few, 0, 3), /rotary: expected few to be \(2, stride\), got \(1, 4\)/);
  await assert.rejects(launch(four, cursors, 2, 1), /expected 3 positions from column 2 within cursors, got \(2, 4\)/);
});
