// Weights on their way: tensors larger than a piece, many small ones in one piece, every stored type to both types.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { openGpu } from "../../src/gpu/device.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import { WeightLoader, weightBytes } from "../../src/models/load.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { computed, linear, norm, picked, rmsNorm, table, tensorsOf } from "../../src/weights/names/tensor-names.ts";
import { packF16, randomValues, roundF16, unpackF16 } from "../kernels/harness.ts";
import { temporaryFolder, withHeader, writeFolder } from "../weights/checkpoint-files.ts";

const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());
const folder = await temporaryFolder();

type Stored = "F32" | "F16" | "BF16";

/** The tensors of a tree in one file, and the values that were stored. */
async function writeTensors(
  name: string,
  tensors: readonly { readonly name: string; readonly shape: readonly number[] }[],
  typeOf: (index: number) => Stored,
): Promise<Map<string, Float32Array>> {
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  const values = new Map<string, Float32Array>();
  let end = 0;
  for (const [i, { name: key, shape }] of tensors.entries()) {
    const count = shape.reduce((product, size) => product * size, 1);
    const { bytes, stored } = store(randomValues(count, i), typeOf(i));
    header[key] = { dtype: typeOf(i), shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
    parts.push(bytes);
    values.set(key, stored);
  }
  const head = withHeader(JSON.stringify(header), 0);
  await writeFolder(folder, name, { "config.json": "{}", "model.safetensors": Buffer.concat([head, ...parts]) });
  return values;
}

function store(values: Float32Array, type: Stored): { bytes: Buffer; stored: Float32Array } {
  if (type === "F32") return { bytes: Buffer.from(values.buffer), stored: values };
  if (type === "F16") {
    const words = packF16(values);
    return { bytes: Buffer.from(words.buffer, 0, values.length * 2), stored: values.map(roundF16) };
  }
  // bf16: the upper half of an f32.
  const bits = Uint16Array.from(new Uint32Array(values.buffer), (word) => word >>> 16);
  const stored = new Float32Array(Uint32Array.from(bits, (half) => half << 16).buffer);
  return { bytes: Buffer.from(bits.buffer), stored };
}

async function valuesOf(tensor: Tensor): Promise<Float32Array> {
  const bytes = await gpu.read(tensor);
  return tensor.type === "f16" ? unpackF16(new Uint32Array(bytes)) : new Float32Array(bytes);
}

function expectSame(name: string, actual: Float32Array, expected: (index: number) => number): void {
  for (const [i, value] of actual.entries()) {
    if (value !== expected(i)) assert.fail(`${name}: expected ${expected(i)} at ${i}, got ${value}`);
  }
}

/** Two heads' worth of rows: of each head three blocks of 4, of which these are the second ones; and the last third of 9. */
const parts = {
  secondOfHeads: linear("fused", 5, 8, { part: { rows: 24, offset: 4, block: 4, period: 12 } }),
  third: linear("thirds", 6, 3, { part: { rows: 9, offset: 6, block: 3, period: 9 } }),
} as const;

const tree = {
  // 4.3 MB each under f32: more than one piece, odd in every direction.
  matrix: linear("matrix", 1033, 1037),
  plain: linear("plain", 5, 7, { bias: false }),
  exact: linear("exact", 6, 9, { bias: false, keepsF32: true }),
  wide: table("wide", [1, 1031, 1051], [1031, 1051]),
  small: [norm("small.0", 9, 0.5), norm("small.1", 1, 0.25)],
  root: rmsNorm("root", 11, 0.125),
  picks: picked("picks", [5, 3], [4, 0, 0, 2, 4, 1]),
  // A view into something larger.
  made: computed("made", [2, 3], () => Float32Array.of(9, 1, 2, 3, 4, 5, 6, 9).subarray(1, 7)),
} as const;

for (const stored of ["F32", "F16", "BF16", "mixed"] as const) {
  for (const type of ["f32", "f16"] as const) {
    test(`${stored} files, ${type} matrices: every value in its place`, async () => {
      const types = ["F32", "F16", "BF16"] as const;
      const typeOf = (i: number): Stored => (stored === "mixed" ? (types[i % 3] as Stored) : stored);
      const values = await writeTensors(stored, tensorsOf(tree), typeOf);
      const checkpoint = await openCheckpoint(`${folder}/${stored}`);
      assert.deepEqual(checkpoint.problems, []);
      const before = gpu.allocatedBytes;
      let told = 0;
      const loader = new WeightLoader(gpu, checkpoint, type, (bytes) => {
        told += bytes;
      });
      const loaded = await loader.load(tree);
      loader.finish();
      const allocated = gpu.allocatedBytes - before;
      assert.ok(Math.abs(allocated - weightBytes(tree, type)) < 200, `${allocated} of ${weightBytes(tree, type)}`);
      assert.ok(told > 0);
      const of = (name: string) => values.get(name) ?? new Float32Array();
      for (const [name, columns, inputs, matrix, kept] of [
        ["matrix", 1037, 1033, loaded.matrix, type],
        ["plain", 7, 5, loaded.plain, type],
        ["exact", 9, 6, loaded.exact, "f32"],
      ] as const) {
        const [segment, ...others] = matrix.segments;
        assert.ok(segment && others.length === 0);
        const stride = Math.ceil(columns / 4) * 4;
        assert.deepEqual(segment.weight.shape, [inputs, stride]);
        assert.equal(segment.weight.type, kept);
        const weights = of(`${name}.weight`);
        expectSame(name, await valuesOf(segment.weight), (i) => {
          const column = i % stride;
          const value = weights[column * inputs + Math.floor(i / stride)] ?? 0;
          return column < columns ? (kept === "f16" ? roundF16(value) : value) : 0;
        });
      }
      assert.equal(loaded.plain.bias, null);
      const exact: [string, Tensor | null][] = [
        ["matrix.bias", loaded.matrix.bias],
        ["wide", loaded.wide],
        ["small.0.weight", loaded.small[0]?.gain ?? null],
        ["small.0.bias", loaded.small[0]?.bias ?? null],
        ["small.1.weight", loaded.small[1]?.gain ?? null],
        ["small.1.bias", loaded.small[1]?.bias ?? null],
        ["root.weight", loaded.root.gain],
      ];
      for (const [name, tensor] of exact) {
        assert.ok(tensor);
        assert.equal(tensor.type, "f32", name);
        const expected = of(name);
        const actual = await valuesOf(tensor);
        assert.equal(actual.length, expected.length);
        expectSame(name, actual, (i) => expected[i] ?? Number.NaN);
      }
      assert.deepEqual([loaded.small[0]?.eps, loaded.small[1]?.eps, loaded.root.eps], [0.5, 0.25, 0.125]);
      assert.deepEqual(loaded.picks.shape, [6, 3]);
      const rows = of("picks");
      const wanted = tree.picks.picks.flatMap((row) => [...rows.subarray(3 * row, 3 * row + 3)]);
      expectSame("picks", await valuesOf(loaded.picks), (i) => wanted[i] ?? Number.NaN);
      assert.deepEqual(loaded.made.shape, [2, 3]);
      expectSame("made", await valuesOf(loaded.made), (i) => i + 1);
      // What reading took stays with the device.
      const full = gpu.allocatedBytes;
      loader.release();
      assert.equal(full - gpu.allocatedBytes, allocated);
    });
  }
}

test("parts of a matrix: blocks of rows become neighbouring columns, of the bias too; a tensor is named once", async () => {
  const named = tensorsOf([parts, parts]);
  assert.deepEqual(
    named.map(({ name, shape }) => [name, ...shape]),
    [
      ["fused.weight", 24, 5],
      ["fused.bias", 24],
      ["thirds.weight", 9, 6],
      ["thirds.bias", 9],
    ],
  );
  for (const stored of ["F32", "F16"] as const) {
    const values = await writeTensors(`parts ${stored}`, named, () => stored);
    const loader = new WeightLoader(gpu, await openCheckpoint(`${folder}/parts ${stored}`), "f32");
    const loaded = await loader.load(parts);
    for (const [key, linear, rows] of [
      ["fused", loaded.secondOfHeads, [4, 5, 6, 7, 16, 17, 18, 19]],
      ["thirds", loaded.third, [6, 7, 8]],
    ] as const) {
      const [segment] = linear.segments;
      assert.ok(segment && linear.bias);
      const weights = values.get(`${key}.weight`) ?? new Float32Array();
      const bias = values.get(`${key}.bias`) ?? new Float32Array();
      const stride = Math.ceil(rows.length / 4) * 4;
      expectSame(`${key} ${stored}`, await valuesOf(segment.weight), (i) => {
        const row = rows[i % stride];
        return row === undefined ? 0 : (weights[row * linear.inputs + Math.floor(i / stride)] ?? Number.NaN);
      });
      expectSame(`${key} bias ${stored}`, await valuesOf(linear.bias), (i) => bias[rows[i] ?? -1] ?? Number.NaN);
    }
    const before = gpu.allocatedBytes;
    loader.release();
    assert.ok(before - gpu.allocatedBytes >= weightBytes(parts, "f32"));
  }
});
