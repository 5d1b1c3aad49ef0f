import assert from "node:assert/strict";
import { test } from "node:test";
import { cachedAttention } from "../../src/kernels/cached-attention.ts";
import { none } from "../../src/kernels/decode-state.ts";
import { cachedAttentionReference } from "../reference/cached-attention.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues, roundF16 } from "./harness.ts";

const rig = await openRig();

interface Case {
  readonly heads: number;
  readonly headDim: number;
  readonly type: "f32" | "f16";
  /** Positions that each row sees; 0 for padding. */
  readonly visible: readonly number[];
  /** Per row: positions of its sequence's context; left out: none. */
  readonly contexts?: readonly number[];
  readonly positions: number;
  readonly spread?: number;
  readonly scale?: number;
  /** Of a position bias; left out: none. */
  readonly reach?: number;
}

/** Every row reads its own sequence, whose positions lie in shuffled slots; unused slots hold NaN. */
function build({ heads, headDim, type, visible, contexts, positions, spread = 1 }: Case) {
  const width = heads * headDim;
  const stride = type === "f16" ? Math.ceil(width / 2) * 2 : width;
  const sequences = visible.length;
  const slots = sequences * positions + 1;
  const nowhere = slots - 1;
  const order = Array.from({ length: slots - 1 }, (_, i) => i);
  const shuffle = randomValues(order.length, 11);
  order.sort((a, b) => (shuffle[a] ?? 0) - (shuffle[b] ?? 0));
  const table = new Uint32Array(sequences * positions).fill(nowhere);
  const keys = new Float32Array(slots * stride).fill(Number.NaN);
  const values = new Float32Array(slots * stride).fill(Number.NaN);
  // Row r reads sequence sequences - 1 - r, so that row and sequence differ.
  const seen = visible.map((own, row) =>
    Array.from({ length: own === 0 ? 0 : Math.max(own, contexts?.[row] ?? 0) }, (_, p) => {
      const sequence = sequences - 1 - row;
      const slot = order[sequence * positions + p] ?? nowhere;
      table[sequence * positions + p] = slot;
      const own = randomValues(2 * width, 1000 * sequence + p, spread);
      const as = (value: number) => (type === "f16" ? roundF16(value) : value);
      keys.set(own.subarray(0, width).map(as), slot * stride);
      values.set(own.subarray(width).map(as), slot * stride);
      return slot;
    }),
  );
  const queries = randomValues(visible.length * width, 77, spread);
  const cursors = visible.flatMap((count, row) => [9, count === 0 ? none : count - 1, 4, sequences - 1 - row]);
  return { width, stride, slots, table, keys, values, seen, queries, cursors, sequences };
}

async function run(given: Case, softwareAdapter: boolean) {
  const { heads, headDim, type, positions, reach, contexts, scale = headDim ** -0.5 } = given;
  const { width, stride, slots, table, keys, values, seen, queries, cursors, sequences } = build(given);
  const rows = given.visible.length;
  const queriesTensor = await rig.tensor("queries", [rows, width], queries);
  const cache = {
    keys: await rig.tensor("keyCache", [slots, stride], keys, type),
    values: await rig.tensor("valueCache", [slots, stride], values, type),
  };
  const tableTensor = await rig.tensor("table", [sequences, positions], table, "u32");
  const cursorsTensor = await rig.tensor("cursors", [rows, 4], cursors, "u32");
  // What lies before a query is all that can be asked for: the rest is NaN.
  const bias =
    reach === undefined ? undefined : randomValues((2 * reach + 1) * heads, 5, 4).fill(Number.NaN, (reach + 1) * heads);
  const more = {
    ...(bias && { positionBias: await rig.tensor("bias", [2 * (reach ?? 0) + 1, heads], bias) }),
    // As rows lie: row r reads sequence sequences - 1 - r.
    ...(contexts && { contexts: await rig.tensor("contexts", [sequences], contexts.toReversed(), "u32") }),
  };
  const [got] = await rig.run((k) => [
    cachedAttention(asFamily(k, softwareAdapter), queriesTensor, cache, tableTensor, cursorsTensor, heads, scale, more),
  ]);
  const positionBias = bias && { reach: reach ?? 0, values: bias };
  const sizes = { heads, headDim, scale, stride, visible: seen };
  const expected = cachedAttentionReference({ ...sizes, queries, keys, values, positionBias });
  assert.ok(got instanceof Float32Array);
  return { got, expected };
}

const rounding = {
  absolute: 3e-6,
  relative: 1e-5,
  reason: "f32 exp and sums of up to a few hundred weights that add to 1",
};

for (const { softwareAdapter, family } of families) {
  for (const [heads, headDim] of [
    [1, 1],
    [3, 5],
    [2, 8],
    [4, 9],
    [5, 63],
    [1, 64],
    [2, 65],
    [2, 80],
    [3, 88],
    [1, 128],
    [1, 131],
  ] as const) {
    // Each head width is a shader to compile: f16 takes the odd and the real ones, the GPU variant every third.
    const types = headDim % 2 === 1 || headDim === 80 ? (["f32", "f16"] as const) : (["f32"] as const);
    if (!softwareAdapter && ![5, 80, 131].includes(headDim)) continue;
    for (const type of types) {
      test(`${heads} heads of ${headDim}, ${type} cache, lengths around the tile, ${family}`, async () => {
        const visible = [1, 2, 0, 63, 64, 65, 5];
        const { got, expected } = await run({ heads, headDim, type, visible, positions: 66 }, softwareAdapter);
        expectClose(got, expected, rounding);
      });
    }
  }

  test(`several tiles: the highest score may come first, later or last, ${family}`, async () => {
    const given = {
      heads: 6,
      headDim: 10,
      type: "f32",
      visible: [127, 128, 129, 192, 193, 300],
      positions: 300,
    } as const;
    const { got, expected } = await run({ ...given, spread: 3 }, softwareAdapter);
    expectClose(got, expected, { ...rounding, absolute: 2e-5 });
  });

  test(`scores of thousands do not overflow, ${family}`, async () => {
    const given = { heads: 8, headDim: 16, type: "f32", visible: [3, 70, 140, 200], positions: 200 } as const;
    const { got, expected } = await run({ ...given, spread: 8, scale: 20 }, softwareAdapter);
    // Scores have an f32 error of about 1e-7 of thousands, which is what the weights' exponents see.
    expectClose(got, expected, { absolute: 2e-2, relative: 2e-3, reason: "exp of differences of scores near 10^4" });
  });

  test(`the scale counts, ${family}`, async () => {
    const given = { heads: 2, headDim: 12, type: "f32", visible: [9, 30], positions: 32 } as const;
    for (const scale of [0, 0.05, 2]) {
      const { got, expected } = await run({ ...given, scale }, softwareAdapter);
      expectClose(got, expected, rounding);
    }
  });

  test(`position bias, near and beyond its reach, ${family}`, async () => {
    for (const [reach, type] of [
      [128, "f32"],
      [70, "f16"],
      [3, "f32"],
      [0, "f32"],
    ] as const) {
      const given = { heads: 3, headDim: 10, type, visible: [1, 4, 0, 65, 129, 130, 131], positions: 131, reach };
      const { got, expected } = await run({ ...given, scale: 1 }, softwareAdapter);
      expectClose(got, expected, rounding);
    }
  });

  test(`rows of a context see all of it, those behind it what came before, ${family}`, async () => {
    for (const type of ["f32", "f16"] as const) {
      const given = { heads: 3, headDim: 10, type, visible: [1, 5, 70, 130, 131, 0, 1, 2], positions: 132 } as const;
      const contexts = [130, 6, 70, 129, 130, 9, 1, 1];
      const { got, expected } = await run({ ...given, contexts }, softwareAdapter);
      expectClose(got, expected, rounding);
    }
  });

  test(`bits depend neither on the table's length nor on other rows, ${family}`, async () => {
    const given = { heads: 2, headDim: 11, type: "f16" } as const;
    const alone = await run({ ...given, visible: [0, 130, 20], positions: 130 }, softwareAdapter);
    const among = await run({ ...given, visible: [64, 130, 20], positions: 257 }, softwareAdapter);
    assert.deepEqual(alone.got.subarray(22), among.got.subarray(22));
  });
}
