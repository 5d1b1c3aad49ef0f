// Weights on their way: tensors larger than a piece, many small ones in one piece, every stored type to both types.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { adapterLine } from "../../src/gpu/adapter.ts";
import { type Gpu, openGpu } from "../../src/gpu/device.ts";
import { byteLength, type Tensor } from "../../src/gpu/tensor.ts";
import type { Linear } from "../../src/kernels/weights.ts";
import { WeightLoader } from "../../src/models/load.ts";
import { weightBytes } from "../../src/models/weight-sizes.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import {
  computed,
  linear,
  norm,
  picked,
  rmsNorm,
  stacked,
  table,
  tensorsOf,
  vocabularyLinear,
} from "../../src/weights/names/tensor-names.ts";
import { packF16, randomValues, roundF16, unpackF16 } from "../kernels/harness.ts";
import { packedWords, packReference, quantizeReference } from "../reference/quantize-weight.ts";
import { temporaryFolder, withHeader, writeFolder } from "../weights/checkpoint-files.ts";

const gpu = await openGpu({ nap: true });
process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
after(() => gpu.close());
const folder = await temporaryFolder();

type Stored = "F32" | "F16" | "BF16";

/** The tensors of a tree in one file, and the values that were stored. @param last instead of some tensors' last value */
async function writeTensors(
  name: string,
  tensors: readonly { readonly name: string; readonly shape: readonly number[] }[],
  typeOf: (index: number) => Stored,
  last: Readonly<Record<string, number>> = {},
): Promise<Map<string, Float32Array>> {
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  const values = new Map<string, Float32Array>();
  let end = 0;
  for (const [i, { name: key, shape }] of tensors.entries()) {
    const count = shape.reduce((product, size) => product * size, 1);
    const drawn = randomValues(count, i);
    if (key in last) drawn[count - 1] = last[key] ?? Number.NaN;
    const { bytes, stored } = store(drawn, typeOf(i));
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

async function valuesOf(tensor: Tensor, device = gpu): Promise<Float32Array> {
  const bytes = await device.read(tensor);
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
  exact: linear("exact", 6, 9, { bias: false, keeps: "f32" }),
  looked: vocabularyLinear("looked", 6, 11),
  wide: table("wide", [1, 1031, 1051], [1031, 1051]),
  small: [norm("small.0", 9, 0.5), norm("small.1", 1, 0.25)],
  root: rmsNorm("root", 11, 0.125),
  picks: picked("picks", [5, 3], [4, 0, 0, 2, 4, 1]),
  // A view into something larger.
  made: computed("made", [2, 3], () => Float32Array.of(9, 1, 2, 3, 4, 5, 6, 9).subarray(1, 7)),
} as const;

for (const stored of ["F32", "F16", "BF16", "mixed"] as const) {
  for (const type of ["f32", "f16", "int8", "int4"] as const) {
    const isPacked = type === "int8" || type === "int4";
    // What is read and where it goes does not depend on the type.
    if (isPacked && stored !== "mixed") continue;
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
        ["looked", 11, 6, loaded.looked, isPacked ? "f16" : type],
      ] as const) {
        const [segment, ...others] = matrix.segments;
        assert.ok(segment && others.length === 0);
        const stride = Math.ceil(columns / 4) * 4;
        assert.deepEqual(segment.weight.shape, [inputs, stride]);
        assert.equal(segment.weight.type, kept);
        const weights = of(`${name}.weight`);
        if (kept === "int8" || kept === "int4") {
          const bits = kept === "int8" ? 8 : 4;
          const values = Float32Array.from({ length: inputs * stride }, (_, i) => {
            return i % stride < columns ? (weights[(i % stride) * inputs + Math.floor(i / stride)] ?? Number.NaN) : 0;
          });
          const expected = new Uint32Array(packedWords(inputs, stride, bits));
          packReference(quantizeReference(values, inputs, stride, bits), stride, { into: expected });
          assert.deepEqual(new Uint32Array(await gpu.read(segment.weight)), expected, name);
          continue;
        }
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

/** Segments and bias of a Linear as (columns, inputs) and (columns), as a file would hold them. */
async function inFileOrder(
  { segments, bias, inputs, columns }: Linear,
  device: Gpu,
): Promise<{ weight: number[]; bias: number[] }> {
  const weight = new Array<number>(columns * inputs).fill(Number.NaN);
  for (const { weight: tensor, from, width } of segments) {
    const values = await valuesOf(tensor, device);
    const stride = tensor.shape[1] ?? 0;
    for (let i = 0; i < inputs; i++) {
      for (let c = 0; c < width; c++) weight[(from + c) * inputs + i] = values[i * stride + c] ?? Number.NaN;
    }
  }
  return { weight, bias: bias ? [...(await valuesOf(bias, device))] : [] };
}

for (const [what, widths, bindingLimit, segments] of [
  ["share a tensor where all widths are multiples of 4", [8, 12, 4], undefined, [24]],
  ["have their own where one is not", [8, 5, 4], undefined, [8, 5, 4]],
  ["are cut at the binding limit, not where one ends", [8, 12, 4], 16 * 1024, [20, 4]],
] as const) {
  test(`matrices side by side ${what}; their biases are one`, async () => {
    const inputs = bindingLimit === undefined ? 6 : 200;
    const one = (i: number, width: number) =>
      i === 1
        ? linear("fused", inputs, width, { part: { rows: 3 * width, offset: width, block: width, period: 3 * width } })
        : linear(`own ${i}`, inputs, width);
    const names = stacked(...widths.map((width, i) => one(i, width)));
    const stored = await writeTensors(`stacked ${what}`, tensorsOf(names), () => "F32");
    const small = bindingLimit === undefined ? gpu : await openGpu({ nap: true, bindingLimit });
    const before = small.allocatedBytes;
    const loader = new WeightLoader(small, await openCheckpoint(`${folder}/stacked ${what}`), "f32");
    const loaded = await loader.load(names);
    loader.finish();
    const allocated = small.allocatedBytes - before;
    assert.ok(Math.abs(allocated - weightBytes(names, "f32")) < 100, `${allocated} of ${weightBytes(names, "f32")}`);
    assert.deepEqual(
      loaded.segments.map(({ width }) => width),
      segments,
    );
    assert.equal(loaded.columns, widths[0] + widths[1] + widths[2]);
    const rowsOf = (i: number, of: "weight" | "bias") => {
      const width = (widths[i] ?? 0) * (of === "weight" ? inputs : 1);
      const values = [...(stored.get(`${i === 1 ? "fused" : `own ${i}`}.${of}`) ?? [])];
      return i === 1 ? values.slice(width, 2 * width) : values;
    };
    const { weight, bias } = await inFileOrder(loaded, small);
    assert.deepEqual(
      weight,
      [0, 1, 2].flatMap((i) => rowsOf(i, "weight")),
    );
    assert.deepEqual(
      bias,
      [0, 1, 2].flatMap((i) => rowsOf(i, "bias")),
    );
    loader.release();
    if (small !== gpu) small.close();
  });
}

test("matrices of different inputs, or only one with a bias, are not put side by side", async () => {
  const names = [
    stacked(linear("a", 4, 8), linear("b", 5, 8)),
    stacked(linear("a", 4, 8), linear("c", 4, 8, { bias: false })),
  ];
  await writeTensors("unlike", tensorsOf(names), () => "F32");
  const checkpoint = await openCheckpoint(`${folder}/unlike`);
  for (const each of names) {
    await assert.rejects(
      new WeightLoader(gpu, checkpoint, "f32").load(each),
      /WeightsError: stacked matrices.*expected the same inputs and type, all or none with a bias, got a\.weight \(8, 4\) with a bias; /s,
    );
  }
});

test("whole numbers in segments below the binding limit are those of the whole matrix, column by column", async () => {
  const small = { matrix: linear("matrix", 70, 85, { bias: false }) };
  const values = await writeTensors("segments", tensorsOf(small), () => "F32");
  const rows = values.get("matrix.weight") ?? new Float32Array();
  const checkpoint = await openCheckpoint(`${folder}/segments`);
  for (const type of ["int8", "int4"] as const) {
    const bits = type === "int8" ? 8 : 4;
    // A segment of 40 columns, and no more than that.
    const limited = await openGpu({ nap: true, bindingLimit: byteLength([70, 43], type) });
    const loader = new WeightLoader(limited, checkpoint, type);
    const { matrix } = await loader.load(small);
    assert.deepEqual(
      matrix.segments.map(({ from, width }) => [from, width]),
      [
        [0, 40],
        [40, 40],
        [80, 5],
      ],
    );
    for (const { weight, from, width } of matrix.segments) {
      const stride = Math.ceil(width / 4) * 4;
      const columns = Float32Array.from({ length: 70 * stride }, (_, i) => {
        return i % stride < width ? (rows[(from + (i % stride)) * 70 + Math.floor(i / stride)] ?? Number.NaN) : 0;
      });
      const expected = new Uint32Array(packedWords(70, stride, bits));
      packReference(quantizeReference(columns, 70, stride, bits), stride, { into: expected });
      assert.deepEqual(new Uint32Array(await limited.read(weight)), expected, `${type} from ${from}`);
    }
    loader.release();
    limited.close();
  }
});

test("a matrix with inf or NaN is refused by name where it becomes whole numbers, and there only", async () => {
  const pair = { good: linear("good", 40, 6), bad: linear("bad", 40, 6), more: linear("more", 40, 6) };
  await writeTensors("infinite", tensorsOf(pair), () => "F16", { "bad.weight": 65520 });
  const checkpoint = await openCheckpoint(`${folder}/infinite`);
  const before = gpu.allocatedBytes;
  for (const type of ["int8", "int4"] as const) {
    const loader = new WeightLoader(gpu, checkpoint, type);
    await assert.rejects(loader.load(pair), {
      name: "WeightsError",
      message:
        /bad\.weight: expected finite numbers under --dtype int8 and int4, got inf or NaN; use --dtype f16 or f32/,
    });
    loader.release();
  }
  const half = new WeightLoader(gpu, checkpoint, "f16");
  await half.load(pair);
  half.release();
  assert.ok(gpu.allocatedBytes - before < 1024, "nothing stays");
});
