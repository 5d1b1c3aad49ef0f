import assert from "node:assert/strict";
import { test } from "node:test";
import type { ElementType } from "../../src/gpu/tensor.ts";
import { convertWeight, type SourceType } from "../../src/kernels/convert-weight.ts";
import { convertWeightReference, type Piece } from "../reference/convert-weight.ts";
import { handOverReference } from "../reference/hand-over.ts";
import { takeOverReference } from "../reference/take-over.ts";
import { openRig, randomValues } from "./harness.ts";

const rig = await openRig();

function piece(type: SourceType, rows: number, inputs: number, seed: number): Piece {
  const count = rows * inputs;
  const values = randomValues(count, seed).map((value, i) => value * 2 ** ((i % 19) - 9));
  const f32 = new Uint32Array(values.buffer);
  if (type === "f32") return { words: f32, type, rows, inputs };
  const halves = new Uint16Array(count + (count % 2));
  halves.set(type === "bf16" ? Uint16Array.from(f32, (bits) => bits >>> 16) : handOverReference(values));
  return { words: new Uint32Array(halves.buffer), type, rows, inputs };
}

const marker = 3;

/** Convert pieces one after the other into columns of a matrix full of `marker`; columns as [piece, column]. */
async function convert(
  pieces: readonly (readonly [Piece, number])[],
  inputs: number,
  stride: number,
  to: ElementType & ("f32" | "f16"),
): Promise<[Float32Array, Float64Array]> {
  const count = inputs * stride;
  const destination = await rig.tensor("weight", [inputs, stride], new Float32Array(count).fill(marker), to);
  const expected = new Float64Array(count).fill(marker);
  for (const [given, column] of pieces) {
    const bytes = await rig.tensor("bytes", [given.words.length], given.words, "u32");
    await rig.run((k) => {
      convertWeight(k, { ...given, bytes }, destination, column);
      return [];
    });
    convertWeightReference(given, expected, stride, column);
  }
  const rounded = to === "f16" ? takeOverReference(handOverReference(expected)) : expected;
  return [(await rig.read(destination)) as Float32Array, rounded];
}

function expectSame(actual: Float32Array, expected: Float64Array, stride: number): void {
  const wrong = actual.findIndex((value, i) => !Object.is(value, expected[i]));
  const place = `row ${Math.floor(wrong / stride)}, column ${wrong % stride}`;
  assert.equal(wrong, -1, `${place}: got ${actual[wrong]}, expected ${expected[wrong]}`);
}

for (const type of ["f32", "f16", "bf16"] as const) {
  for (const to of ["f32", "f16"] as const) {
    for (const [rows, inputs] of [
      [1, 1],
      [2, 3],
      [3, 8],
      [4, 9],
      [5, 7],
      [17, 33],
      [31, 64],
      [64, 588],
      [130, 5],
    ] as const) {
      test(`(${rows}, ${inputs}) ${type} to ${to}`, async () => {
        const stride = Math.ceil(rows / 4) * 4;
        const [actual, expected] = await convert([[piece(type, rows, inputs, 1), 0]], inputs, stride, to);
        expectSame(actual, expected, stride);
      });
    }

    test(`pieces of a matrix ${type} to ${to}, the columns between them untouched`, async () => {
      const pieces = [
        [piece(type, 8, 11, 2), 4],
        [piece(type, 4, 11, 3), 12],
        [piece(type, 7, 11, 4), 20],
      ] as const;
      const [actual, expected] = await convert(pieces, 11, 32, to);
      expectSame(actual, expected, 32);
      assert.equal(actual[0], marker);
      assert.equal(actual[27], 0, "padding of the last piece");
    });
  }
}

test("f16 to f16 copies every bit pattern; bf16 and f16 to f32 keep denormals, inf and NaN", async () => {
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const words = new Uint32Array(halves.buffer);
  const bytes = await rig.tensor("bytes", [words.length], words, "u32");
  for (const type of ["f16", "bf16"] as const) {
    for (const to of ["f16", "f32"] as const) {
      if (type === "bf16" && to === "f16") continue;
      const destination = await rig.tensor("weight", [1024, 64], undefined, to);
      await rig.run((k) => {
        convertWeight(k, { bytes, type, rows: 64, inputs: 1024 }, destination, 0);
        return [];
      });
      const raw = await rig.gpu.read(destination);
      const actual = to === "f16" ? new Uint16Array(raw) : new Uint32Array(raw);
      const f32 = new Uint32Array(Float32Array.from(takeOverReference(halves)).buffer);
      for (let pattern = 0; pattern < 65536; pattern++) {
        const got = actual[(pattern % 1024) * 64 + Math.floor(pattern / 1024)] ?? 0;
        const nan = type === "f16" && to === "f32" && (pattern & 0x7fff) > 0x7c00;
        if (nan) assert.ok((got & 0x7fffffff) > 0x7f800000, `f16 NaN ${pattern.toString(16)}`);
        else
          assert.equal(got, to === "f16" ? pattern : type === "f16" ? f32[pattern] : pattern * 65536, `${type} ${to}`);
      }
    }
  }
});

test("f32 and bf16 to f16 round to nearest even and overflow to inf", async () => {
  const values = [
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
    65519.99,
    65520,
    -1e9,
    2 ** -25,
    1.5 * 2 ** -24,
    2.5 * 2 ** -24,
    1e-40,
  ];
  const f32 = new Uint32Array(Float32Array.from(values).buffer);
  const bf16 = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((bits) => (bits & 0x7fff) <= 0x7f80);
  for (const given of [
    { words: f32, type: "f32", rows: 1, inputs: values.length },
    { words: new Uint32Array(bf16.buffer), type: "bf16", rows: 1, inputs: bf16.length },
  ] as const) {
    const [actual, expected] = await convert([[given, 0]], given.inputs, 4, "f16");
    expectSame(actual, expected, 4);
  }
});

test("what does not fit is named", async () => {
  const bytes = await rig.tensor("bytes", [6], new Uint32Array(6), "u32");
  const weight = await rig.tensor("weight", [3, 4], new Float32Array(12));
  const launch = (rows: number, column: number, type: SourceType) =>
    rig.run((k) => {
      convertWeight(k, { bytes, type, rows, inputs: 3 }, weight, column);
      return [];
    });
  await assert.rejects(
    launch(4, 2, "f16"),
    /ShapeError: convertWeight: expected 4 rows of 3 to become columns of weight/,
  );
  await assert.rejects(launch(5, 0, "f16"), /ShapeError: convertWeight/);
  await assert.rejects(launch(4, 0, "f32"), /ShapeError: convertWeight/);
});
