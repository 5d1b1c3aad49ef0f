import assert from "node:assert/strict";
import { test } from "node:test";
import { appendCache, splitIntoCache } from "../../src/kernels/append-cache.ts";
import { none } from "../../src/kernels/decode-state.ts";
import { openRig, randomValues, roundF16 } from "./harness.ts";

const rig = await openRig();
const before = 0.5;

async function run(
  width: number,
  slotCount: number,
  slots: readonly number[],
  type: "f32" | "f16",
  keys: Float32Array,
  values: Float32Array,
) {
  const rows = slots.length;
  const stride = type === "f16" ? Math.ceil(width / 2) * 2 : width;
  const old = new Float32Array(slotCount * stride).fill(before);
  const cache = {
    keys: await rig.tensor("keyCache", [slotCount, stride], old, type),
    values: await rig.tensor("valueCache", [slotCount, stride], old, type),
  };
  const keysTensor = await rig.tensor("keys", [rows, width], keys);
  const valuesTensor = await rig.tensor("values", [rows, width], values);
  const cursors = await rig.tensor(
    "cursors",
    [rows, 4],
    slots.flatMap((slot) => [1, 2, slot, 3]),
    "u32",
  );
  await rig.run((k) => {
    appendCache(k, keysTensor, valuesTensor, cursors, cache);
    return [];
  });
  for (const [name, tensor, given] of [
    ["keys", cache.keys, keys],
    ["values", cache.values, values],
  ] as const) {
    const expected = Float32Array.from(old);
    for (const [row, slot] of slots.entries()) {
      if (slot === none) continue;
      for (let d = 0; d < stride; d++) {
        const value = d < width ? (given[row * width + d] ?? Number.NaN) : 0;
        expected[slot * stride + d] = type === "f16" ? roundF16(value) : value;
      }
    }
    const got = await rig.read(tensor);
    // Signs of zeros count too.
    assert.deepEqual([...got], [...expected], name);
  }
}

for (const width of [1, 2, 5, 63, 64, 65, 128, 131]) {
  for (const type of ["f32", "f16"] as const) {
    test(`width ${width}, ${type}: scattered slots, rows without slot`, async () => {
      const slots = [6, none, 0, 3, none, 7];
      const count = slots.length * width;
      await run(width, 9, slots, type, randomValues(count, 1, 30), randomValues(count, 2, 0.01));
    });
  }
}

for (const width of [1, 5, 64, 66]) {
  for (const type of ["f32", "f16"] as const) {
    test(`columns of fused products, width ${width}, ${type}: queries of all rows come out`, async () => {
      const slots = [2, none, 0];
      const stride = type === "f16" ? Math.ceil(width / 2) * 2 : width;
      const cacheTensor = (name: string) =>
        rig.tensor(name, [3, stride], new Float32Array(3 * stride).fill(before), type);
      const cache = { keys: await cacheTensor("keyCache"), values: await cacheTensor("valueCache") };
      // Queries and keys behind a column that is neither, in rows of their own width; values in others.
      const [turnedWidth, fusedWidth] = [2 * width + 1, 3 * width + 2];
      const turned = randomValues(3 * turnedWidth, 3, 30);
      const fused = randomValues(3 * fusedWidth, 4, 0.01);
      const rows = { turned: await rig.tensor("turned", [3, turnedWidth], turned) };
      const parts = {
        queries: { rows: rows.turned, column: 1 },
        keys: { rows: rows.turned, column: 1 + width },
        values: { rows: await rig.tensor("fused", [3, fusedWidth], fused), column: 2 * width },
      };
      const words = slots.flatMap((slot) => [1, 2, slot, 3]);
      const cursors = await rig.tensor("cursors", [3, 4], words, "u32");
      const [queries] = await rig.run((k) => [splitIntoCache(k, parts, width, cursors, cache)]);
      const columns = (from: Float32Array, wide: number, column: number, row: number) =>
        from.subarray(row * wide + column, row * wide + column + width);
      assert.deepEqual(
        [...(queries ?? [])],
        [0, 1, 2].flatMap((row) => [...columns(turned, turnedWidth, 1, row)]),
      );
      for (const [tensor, from, wide, column] of [
        [cache.keys, turned, turnedWidth, 1 + width],
        [cache.values, fused, fusedWidth, 2 * width],
      ] as const) {
        const expected = new Float32Array(3 * stride).fill(before);
        for (const [row, slot] of [
          [0, 2],
          [2, 0],
        ] as const) {
          expected.fill(0, slot * stride, (slot + 1) * stride);
          expected.set(columns(from, wide, column, row).map(type === "f16" ? roundF16 : (v) => v), slot * stride);
        }
        assert.deepEqual([...(await rig.read(tensor))], [...expected]);
      }
      const narrow = { ...parts, values: { ...parts.values, column: 2 * width + 3 } };
      await assert.rejects(
        rig.run((k) => [splitIntoCache(k, narrow, width, cursors, cache)]),
        /ShapeError: appendCache: expected \d+ columns from \d+ on within fused, got/,
      );
    });
  }
}

test("f16 rounds to nearest, ties to even, over all of its range", async () => {
  const hard = [0, -0, 1, -1, 65504, 65519.996, 65520, -65520, 1e6, 2 ** -24, 2 ** -25, 1.0000001 * 2 ** -25, 2 ** -26];
  hard.push(
    1.5 * 2 ** -24,
    2.5 * 2 ** -24,
    2 ** -14,
    2 ** -14 - 2 ** -26,
    2 ** -14 - 2 ** -25,
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
  );
  hard.push(1 + 2 ** -11 + 2 ** -20, 2047.5, 2048.5, 4097, 4099, 1e-10, -(2 ** -25), 3e-45, 0.1, 1 / 3);
  const bits = new Uint32Array(2048);
  for (let i = 0; i < bits.length; i++) {
    // Exponents from far below to above the range of f16; last places around ties.
    const exponent = 127 - 30 + (i % 48);
    const tail = [0, 0x1000, 0x1001, 0xfff, 0x3000, 0x2fff, 0x800, 0x1fff][Math.floor(i / 48) % 8] ?? 0;
    bits[i] = ((i & 1) << 31) | (exponent << 23) | ((Math.imul(i, 0x9e37) & 0x3ff) << 13) | tail;
  }
  const values = Float32Array.from([...hard, ...new Float32Array(bits.buffer)]);
  await run(
    values.length,
    1,
    [0],
    "f16",
    values,
    values.map((value) => -value),
  );
});
