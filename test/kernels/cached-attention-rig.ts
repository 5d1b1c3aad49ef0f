// What every kernel of attention over a cache must do, beside the reference in f64.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Recorder } from "../../src/gpu/recorder.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import { type CachedForm, cachedForm } from "../../src/kernels/cached-form.ts";
import { none } from "../../src/kernels/decode-state.ts";
import { cachedAttentionReference } from "../reference/cached-attention.ts";
import { expectClose, type Rig, randomValues, roundF16 } from "./harness.ts";

/** A kernel of attention over a cache, with what it launches besides. */
export type AttendCached = (k: Recorder, form: CachedForm) => Tensor;

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

async function compute(rig: Rig, attend: AttendCached, given: Case) {
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
    attend(k, cachedForm(queriesTensor, cache, tableTensor, cursorsTensor, heads, scale, more)),
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

/**
 * Declares the tests.
 * @param widths of heads, each to be compiled
 * @param others variants of the same kernel, each asked once
 */
export function testCached(
  rig: Rig,
  attend: AttendCached,
  widths: readonly number[],
  others: readonly AttendCached[],
): void {
  const run = (given: Case) => compute(rig, attend, given);

  for (const headDim of widths) {
    for (const type of ["f32", "f16"] as const) {
      test(`3 heads of ${headDim}, ${type} cache, lengths around the tile`, async () => {
        const visible = [1, 2, 0, 63, 64, 65, 5];
        const { got, expected } = await run({ heads: 3, headDim, type, visible, positions: 66 });
        expectClose(got, expected, rounding);
      });
    }
  }

  test("several tiles: the highest score may come first, later or last", async () => {
    const given = {
      heads: 6,
      headDim: 10,
      type: "f32",
      visible: [127, 128, 129, 192, 193, 300],
      positions: 300,
    } as const;
    const { got, expected } = await run({ ...given, spread: 3 });
    expectClose(got, expected, { ...rounding, absolute: 2e-5 });
  });

  test("so do other variants", async () => {
    const visible = [31, 33, 65, 0, 129, 300];
    const given = { heads: 2, headDim: 10, type: "f16", visible, positions: 300, spread: 3 } as const;
    for (const other of others) {
      const { got, expected } = await compute(rig, other, given);
      expectClose(got, expected, { ...rounding, absolute: 2e-5 });
    }
  });

  test("scores of thousands do not overflow", async () => {
    const given = { heads: 8, headDim: 16, type: "f32", visible: [3, 70, 140, 200], positions: 200 } as const;
    const { got, expected } = await run({ ...given, spread: 8, scale: 20 });
    // Scores have an f32 error of about 1e-7 of thousands, which is what the weights' exponents see.
    expectClose(got, expected, { absolute: 2e-2, relative: 2e-3, reason: "exp of differences of scores near 10^4" });
  });

  test("the scale counts", async () => {
    const given = { heads: 2, headDim: 12, type: "f32", visible: [9, 30], positions: 32 } as const;
    for (const scale of [0, 0.05, 2]) {
      const { got, expected } = await run({ ...given, scale });
      expectClose(got, expected, rounding);
    }
  });

  test("position bias, near and beyond its reach", async () => {
    for (const [reach, type] of [
      [128, "f32"],
      [70, "f16"],
      [3, "f32"],
      [0, "f32"],
    ] as const) {
      const given = { heads: 3, headDim: 10, type, visible: [1, 4, 0, 65, 129, 130, 131], positions: 131, reach };
      const { got, expected } = await run({ ...given, scale: 1 });
      expectClose(got, expected, rounding);
    }
  });

  test("rows of a context see all of it, those behind it what came before", async () => {
    for (const type of ["f32", "f16"] as const) {
      const given = { heads: 3, headDim: 10, type, visible: [1, 5, 70, 130, 131, 0, 1, 2], positions: 132 } as const;
      const contexts = [130, 6, 70, 129, 130, 9, 1, 1];
      const { got, expected } = await run({ ...given, contexts });
      expectClose(got, expected, rounding);
    }
    // Within one span a kernel for GPUs writes the result itself.
    const short = { heads: 3, headDim: 10, type: "f32", visible: [1, 5, 0], positions: 66 } as const;
    const { got, expected } = await run({ ...short, contexts: [3, 6, 9] });
    expectClose(got, expected, rounding);
  });

  test("bits depend neither on the table's length nor on other rows", async () => {
    const given = { heads: 2, headDim: 11, type: "f16" } as const;
    const alone = await run({ ...given, visible: [0, 130, 20], positions: 130 });
    const among = await run({ ...given, visible: [64, 130, 20], positions: 257 });
    assert.deepEqual(alone.got.subarray(22), among.got.subarray(22));
  });
}
