import assert from "node:assert/strict";
import { test } from "node:test";
import { convertPlain } from "../../src/kernels/convert-plain.ts";
import type { SourceType } from "../../src/kernels/convert-weight.ts";
import { convertPlainReference } from "../reference/convert-plain.ts";
import { openRig, randomValues } from "./harness.ts";

const rig = await openRig();

/** f32 values, or every 16-bit pattern once and again. */
function elements(type: SourceType, count: number): Uint32Array {
  if (type === "f32") return new Uint32Array(randomValues(count, 1, 1e3).buffer);
  const halves = Uint16Array.from({ length: count + (count % 2) }, (_, i) => i * 21101);
  return new Uint32Array(halves.buffer);
}

for (const type of ["f32", "f16", "bf16"] as const) {
  for (const [count, first, size] of [
    [1, 0, 1],
    [7, 0, 7],
    [65536, 0, 65536],
    [33, 5, 40],
    // More elements than one dimension of workgroups holds.
    [4194400, 3, 4194403],
  ] as const) {
    test(`${count} of ${type} to element ${first} of ${size}`, async () => {
      const words = elements(type, count);
      const bytes = await rig.tensor("bytes", [words.length], words, "u32");
      const destination = await rig.tensor("table", [size], new Float32Array(size).fill(77));
      await rig.run((k) => {
        convertPlain(k, { bytes, type, count }, destination, first);
        return [];
      });
      const expected = new Float32Array(size).fill(77);
      expected.set(Float32Array.from(convertPlainReference(words, type, count)), first);
      const actual = (await rig.read(destination)) as Float32Array;
      const wrong = actual.findIndex((value, i) => !Object.is(value, expected[i]));
      assert.equal(wrong, -1, `element ${wrong}: got ${actual[wrong]}, expected ${expected[wrong]}`);
    });
  }
}

test("what does not fit is named", async () => {
  const bytes = await rig.tensor("bytes", [2], [0, 0], "u32");
  const table = await rig.tensor("table", [4], new Float32Array(4));
  const launch = (count: number, first: number) =>
    rig.run((k) => {
      convertPlain(k, { bytes, type: "f16", count }, table, first);
      return [];
    });
  await assert.rejects(launch(4, 1), /ShapeError: convertPlain: expected 4 elements from 1 on to fit table \(4\)/);
  await assert.rejects(launch(5, 0), /ShapeError: convertPlain/);
});
