import assert from "node:assert/strict";
import { test } from "node:test";
import type { Tensor } from "../../src/gpu/tensor.ts";
import type { SourceType } from "../../src/kernels/convert-weight.ts";
import { quantizeWeight } from "../../src/kernels/quantize-weight.ts";
import { convertPlainReference } from "../reference/convert-plain.ts";
import { handOverReference } from "../reference/hand-over.ts";
import { packedWords, packReference, quantizeReference } from "../reference/quantize-weight.ts";
import { openRig, randomValues } from "./harness.ts";

const rig = await openRig();

interface Piece {
  readonly words: Uint32Array;
  readonly type: SourceType;
  /** Columns of ours. */
  readonly rows: number;
  readonly inputs: number;
}

function stored(values: Float32Array, type: SourceType, rows: number): Piece {
  const inputs = values.length / rows;
  const f32 = new Uint32Array(values.buffer, values.byteOffset, values.length);
  if (type === "f32") return { words: f32, type, rows, inputs };
  const halves = new Uint16Array(values.length + (values.length % 2));
  halves.set(type === "bf16" ? Uint16Array.from(f32, (bits) => bits >>> 16) : handOverReference(values));
  return { words: new Uint32Array(halves.buffer), type, rows, inputs };
}

function randomPiece(type: SourceType, rows: number, inputs: number, seed: number): Piece {
  return stored(
    randomValues(rows * inputs, seed).map((value, i) => value * 2 ** ((i % 11) - 7)),
    type,
    rows,
  );
}

/** Our (inputs, rows) of a stored (rows, inputs). */
function transposed({ words, type, rows, inputs }: Piece): Float64Array {
  const values = convertPlainReference(words, type, rows * inputs);
  return Float64Array.from({ length: rows * inputs }, (_, i) => {
    return values[(i % rows) * inputs + Math.floor(i / rows)] ?? Number.NaN;
  });
}

const marker = 0x5a5a5a5a;

/** Quantize pieces one after the other into columns of a matrix full of `marker`. @returns what came and what should */
async function quantize(
  pieces: readonly (readonly [Piece, number])[],
  inputs: number,
  stride: number,
  bits: 4 | 8,
): Promise<{ readonly got: Uint32Array; readonly expected: Uint32Array; readonly refused: number | undefined }> {
  const words = packedWords(inputs, stride, bits);
  const expected = new Uint32Array(words).fill(marker);
  const type = bits === 8 ? "int8" : "int4";
  const destination = await rig.tensor("weight", [inputs, stride], expected, type);
  const refused = await rig.tensor("refused", [1], [0], "u32");
  for (const [i, [piece, column]] of pieces.entries()) {
    const bytes = await rig.tensor("bytes", [piece.words.length], piece.words, "u32");
    await rig.run((k) => {
      quantizeWeight(k, { ...piece, bytes }, destination, column, { refused, number: i + 1 });
      return [];
    });
    const columns = Math.ceil(piece.rows / 4) * 4;
    const values = transposed(piece);
    const padded = Float64Array.from({ length: inputs * columns }, (_, at) => {
      const c = at % columns;
      return c < piece.rows ? (values[Math.floor(at / columns) * piece.rows + c] ?? Number.NaN) : 0;
    });
    packReference(quantizeReference(padded, inputs, columns, bits), stride, { into: expected, first: column });
  }
  const [flag] = await rig.read(refused);
  return { got: (await rig.read(destination)) as Uint32Array, expected, refused: flag };
}

function expectSame(got: Uint32Array, expected: Uint32Array, what: string): void {
  const wrong = got.findIndex((word, i) => word !== expected[i]);
  const hex = (word: number | undefined) => word?.toString(16);
  assert.equal(wrong, -1, `${what}, word ${wrong}: got ${hex(got[wrong])}, expected ${hex(expected[wrong])}`);
}

for (const bits of [8, 4] as const) {
  for (const type of ["f32", "f16", "bf16"] as const) {
    test(`${type} to int${bits}, and pieces of a matrix, the columns between them untouched`, async () => {
      for (const [rows, inputs] of [
        [1, 1],
        [3, 8],
        [5, 31],
        [17, 33],
        [31, 64],
        [66, 588],
        [130, 5],
        [4, 300],
      ] as const) {
        const stride = Math.ceil(rows / 4) * 4;
        const { got, expected } = await quantize([[randomPiece(type, rows, inputs, 1), 0]], inputs, stride, bits);
        expectSame(got, expected, `(${rows}, ${inputs})`);
      }
      const pieces = [
        [randomPiece(type, 8, 43, 2), 4],
        [randomPiece(type, 4, 43, 3), 12],
        [randomPiece(type, 7, 43, 4), 20],
      ] as const;
      const { got, expected } = await quantize(pieces, 43, 32, bits);
      expectSame(got, expected, "pieces");
      assert.equal(got[3], marker);
    });
  }

  test(`groups of int${bits} that hurt: zeros, one huge value, both signs as large, halves, denormals`, async () => {
    const least = 2 ** (bits - 1);
    const of = (...values: number[]) => Float32Array.from({ length: 32 }, (_, i) => values[i % values.length] ?? 0);
    const groups = [
      of(0),
      of(-0),
      of(3e38, ...new Array<number>(31).fill(1)),
      of(-3e38, 3e38),
      of(5, -5),
      of(-5, 5),
      of(1e-40, -1e-39),
      of(2 ** -100, 2 ** -101),
      of(2 ** -100 * (1 - 2 ** -24), 0),
      of(2 ** -99, 2 ** -140),
      // Halves: the scale is 1, and then 1 the other way.
      of(-least, ...Array.from({ length: 2 * least - 1 }, (_, i) => i + 0.5 - least)),
      of(least, ...Array.from({ length: 31 }, (_, i) => 15.5 - i)),
      // Right beside halves.
      of(-least, 0.5, 0.49999997, 1.5, 1.4999999, 2.5000002, -1.5, -1.4999999, -2.5000002, 3.4999998),
      // Scales that bf16 rounds up, down, and to even.
      of(1 + 2 ** -9, 0.3),
      of(1 + 2 ** -8, -0.3),
      of(1 + 3 * 2 ** -8, 0.7),
      of(-(1 + 2 ** -8 + 2 ** -20), 0.99),
      of(2 - 2 ** -23, 1.9, -1.9),
      // The other side is held back.
      of(-1, 0.9999999),
    ];
    const values = Float32Array.from(groups.flatMap((group) => [...group]));
    // Every group by itself in a column, and all of them behind one another.
    for (const rows of [groups.length, 1]) {
      const piece = stored(values, "f32", rows);
      const stride = Math.ceil(rows / 4) * 4;
      const { got, expected, refused } = await quantize([[piece, 0]], piece.inputs, stride, bits);
      expectSame(got, expected, `${rows} rows`);
      assert.equal(refused, 0);
    }
  });

  test(`every f16 and bf16 as int${bits}, beside a larger one`, async () => {
    for (const type of ["f16", "bf16"] as const) {
      const halves = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((half) => {
        return (half & 0x7fff) < (type === "f16" ? 0x7c00 : 0x7f80);
      });
      const rows = halves.length / 256;
      const piece = { words: new Uint32Array(halves.buffer), type, rows, inputs: 256 };
      const { got, expected, refused } = await quantize([[piece, 0]], 256, Math.ceil(rows / 4) * 4, bits);
      expectSame(got, expected, type);
      assert.equal(refused, 0);
    }
  });
}

test("inf and NaN are told, with the largest number of those that have them", async () => {
  for (const type of ["f32", "f16", "bf16"] as const) {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const values = randomValues(7 * 40, 5);
      values[6 * 40 + 39] = bad;
      const good = stored(randomValues(7 * 40, 6), type, 7);
      const { refused } = await quantize(
        [
          [good, 0],
          [stored(values, type, 7), 8],
          [good, 16],
        ],
        40,
        24,
        4,
      );
      assert.equal(refused, 2, `${bad} in ${type}`);
    }
  }
});

test("what does not fit is named", async () => {
  const bytes = await rig.tensor("bytes", [6], new Uint32Array(6), "u32");
  const refused = await rig.tensor("refused", [1], [0], "u32");
  const weight = await rig.tensor("weight", [3, 4], undefined, "int4");
  const plain = await rig.tensor("plain", [3, 4], undefined, "f32");
  const launch = (destination: Tensor, rows: number, column: number, type: SourceType) =>
    rig.run((k) => {
      quantizeWeight(k, { bytes, type, rows, inputs: 3 }, destination, column, { refused, number: 1 });
      return [];
    });
  await assert.rejects(
    launch(weight, 4, 2, "f16"),
    /ShapeError: quantizeWeight: expected 4 rows of 3 to become columns of weight/,
  );
  await assert.rejects(launch(weight, 5, 0, "f16"), /ShapeError: quantizeWeight/);
  await assert.rejects(launch(weight, 4, 0, "f32"), /ShapeError: quantizeWeight/);
  await assert.rejects(launch(plain, 4, 0, "f16"), /quantizeWeight: expected plain to be int8 or int4, got f32/);
});
