// The SIMD loops against plain ones.

import assert from "node:assert/strict";
import { test } from "node:test";
import { codeScan, laneOfSlot, products } from "../../src/search/code-programs.ts";
import { wasmMemory } from "../../src/search/wasm.ts";
import { randomValues } from "../kernels/harness.ts";

const random = (count: number, seed: number, below: number) =>
  [...randomValues(count, seed)].map((value) => Math.floor(((value + 1) / 2) * below) % below);

test("codes are looked up half byte by half byte, and the largest slot of each image wins", () => {
  for (const [images, blocks, bytes] of [
    [1, 1, 1],
    [3, 2, 5],
    [2, 3, 64],
  ] as const) {
    const memory = wasmMemory(65536);
    const scan = codeScan(memory);
    const at = { tables: 0, starts: 4096, codes: 8192, factors: 32768, out: 40960 };
    const tables = random(bytes * 32, 1, 128);
    const starts = randomValues(blocks * 16, 2);
    starts[blocks * 16 - 1] = Number.NEGATIVE_INFINITY;
    const codes = random(images * blocks * bytes * 16, 3, 256);
    // f32 whose lower halves are zero
    const factors = random(images * blocks * 16, 4, 300).map((value) => (value - 20) / 256);
    new Uint8Array(memory.buffer).set(tables, at.tables);
    new Float32Array(memory.buffer).set(starts, at.starts / 4);
    new Uint8Array(memory.buffer).set(codes, at.codes);
    const halves = new Uint16Array(Float32Array.from(factors).buffer).filter((_, i) => i % 2 === 1);
    new Uint16Array(memory.buffer).set(halves, at.factors / 2);
    scan({ ...at, images, blocks, bytes, scale: 0.01, offset: -0.25 });
    const got = new Float32Array(memory.buffer, at.out, images + 1);
    for (let image = 0; image < images; image++) {
      let best = Number.NEGATIVE_INFINITY;
      for (let slot = 0; slot < blocks * 16; slot++) {
        const block = image * blocks + Math.floor(slot / 16);
        let sum = 0;
        for (let byte = 0; byte < bytes; byte++) {
          const code = codes[(block * bytes + byte) * 16 + (laneOfSlot[slot % 16] ?? 0)] ?? 0;
          sum += (tables[byte * 32 + (code & 15)] ?? 0) + (tables[byte * 32 + 16 + (code >> 4)] ?? 0);
        }
        const factor = new Float32Array(Uint32Array.of((halves[block * 16 + (slot % 16)] ?? 0) << 16).buffer)[0] ?? 0;
        best = Math.max(best, (starts[slot] ?? 0) + factor * (0.01 * sum - 0.25));
      }
      const gap = Math.abs((got[image] ?? Number.NaN) - best);
      assert.ok(gap <= 1e-4, `${images} ${blocks} ${bytes}: image ${image}: ${got[image]}, expected ${best}`);
    }
    assert.equal(got[images], 0, "nothing behind the last image");
  }
});

test("the largest sums of a code do not overflow", () => {
  const memory = wasmMemory(65536);
  const at = { tables: 0, starts: 20480, codes: 24576, factors: 40960, out: 49152 };
  const bytes = 256;
  new Uint8Array(memory.buffer).fill(127, 0, bytes * 32);
  new Uint16Array(memory.buffer).fill(0x3f80, at.factors / 2, at.factors / 2 + 16);
  codeScan(memory)({ ...at, images: 1, blocks: 1, bytes, scale: 1, offset: 0 });
  assert.equal(new Float32Array(memory.buffer, at.out, 1)[0], bytes * 2 * 127);
});

test("products of 16-bit rows, the largest too", () => {
  const memory = wasmMemory(65536);
  const multiply = products(memory);
  for (const [rowCount, columnCount, width] of [
    [1, 4, 8],
    [3, 8, 24],
    [5, 4, 256],
  ] as const) {
    const at = { rows: 0, columns: 8192, out: 32768 };
    const whole = new Int16Array(memory.buffer);
    const rows = random(rowCount * width, 5, 255).map((value) => value - 127);
    const columns = random(columnCount * width, 6, 65535).map((value) => value - 32767);
    whole.set(rows, at.rows / 2);
    whole.set(columns, at.columns / 2);
    multiply({ ...at, rowCount, columnCount, width });
    const got = new Int32Array(memory.buffer, at.out, rowCount * columnCount);
    for (let row = 0; row < rowCount; row++) {
      for (let column = 0; column < columnCount; column++) {
        let sum = 0;
        for (let i = 0; i < width; i++) sum += (rows[row * width + i] ?? 0) * (columns[column * width + i] ?? 0);
        assert.equal(got[row * columnCount + column], sum, `row ${row}, column ${column}, width ${width}`);
      }
    }
  }
});
