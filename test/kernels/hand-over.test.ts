import assert from "node:assert/strict";
import { test } from "node:test";
import { handOver } from "../../src/kernels/hand-over.ts";
import { handOverReference } from "../reference/hand-over.ts";
import { openRig, randomValues } from "./harness.ts";

const rig = await openRig();

async function toF16(shape: readonly [number, number], values: ArrayLike<number>): Promise<Uint32Array> {
  const x = await rig.tensor("x", shape, values);
  const list = await rig.gpu.record("hand-over", (k) => handOver(k, x, "f16"));
  const [bytes] = await rig.gpu.submit([list], { reads: [list.result] });
  list.destroy();
  const halves = new Uint16Array(bytes ?? new ArrayBuffer(0));
  assert.ok(halves.length >= values.length);
  assert.ok(
    halves.subarray(values.length).every((half) => half === 0),
    "the half beside an odd last element is 0",
  );
  return Uint32Array.from(halves.subarray(0, values.length));
}

const edges = [
  0,
  -0,
  1,
  -1,
  1 + 2 ** -11,
  1 + 3 * 2 ** -11,
  1 + 2 ** -11 + 2 ** -20,
  2 - 2 ** -12,
  65504,
  65519.99,
  65520,
  -65520,
  1e10,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  2 ** -14,
  2 ** -14 - 2 ** -26,
  2 ** -14 - 2 ** -25,
  2 ** -24,
  2 ** -25,
  -(2 ** -25),
  1.5 * 2 ** -24,
  2.5 * 2 ** -24,
  1.0001 * 2 ** -25,
  1e-30,
];

test("every kind of value, to nearest, ties to even", async () => {
  const values = Float32Array.from([...edges, ...edges.map((value) => -value), ...randomValues(2000, 1, 3)]);
  assert.deepEqual(await toF16([values.length, 1], values), handOverReference(values));
});

test("an odd number of elements, and magnitudes from 2^-27 to 2^18", async () => {
  const values = randomValues(45 * 101, 2).map((value, i) => value * 2 ** ((i % 45) - 27));
  assert.deepEqual(await toF16([45, 101], values), handOverReference(values));
});

test("NaN stays NaN", async () => {
  const [half = 0] = await toF16([1, 1], [Number.NaN]);
  assert.ok((half & 0x7fff) > 0x7c00);
});

test("nothing but the tensor is written, in both types", async () => {
  const values = randomValues(3 * 70, 3);
  const x = await rig.tensor("x", [3, 70], values);
  const [f16, f32] = await rig.run((k) => [handOver(k, x, "f16"), handOver(k, x, "f32")]);
  assert.equal(f16?.length, 210);
  assert.deepEqual(f32, values);
});

test("more words than one dimension of workgroups holds", async () => {
  const values = randomValues(2 * 4194500, 4);
  const x = await rig.tensor("x", [2, 4194500], values);
  const [y] = await rig.run((k) => [handOver(k, x, "f32")]);
  assert.ok(y && Buffer.from(y.buffer).equals(Buffer.from(values.buffer)));
});
