// The two inner loops of coded search, as WebAssembly with SIMD: V8 makes no vector instructions from JavaScript, and plain
// loops over typed arrays take several times as long (`npm run bench -- --only search`).

import {
  f32,
  f32x4,
  i8x16,
  i16x8,
  i32,
  i32x4,
  loop,
  type Variable,
  v128,
  WasmFunction,
  type WasmMemory,
} from "./wasm.ts";

/** Vectors that are looked at together. */
export const lanes = 16;

/** The lane of each slot of a block: sums of even lanes come out before those of odd ones. */
export const laneOfSlot: readonly number[] = Array.from({ length: lanes }, (_, slot) =>
  slot < 8 ? 2 * slot : 2 * (slot - 8) + 1,
);

export interface CodeScan {
  /** Bytes; 2 * `bytes` tables of 16 values from 0 to 127. */
  readonly tables: number;
  /** f32 for each slot of an image: `blocks` * 16. */
  readonly starts: number;
  /** Bytes: (images, blocks, bytes, 16). */
  readonly codes: number;
  /** Upper halves of f32: (images, blocks * 16). */
  readonly factors: number;
  /** f32 for each image. */
  readonly out: number;
  readonly images: number;
  readonly blocks: number;
  /** Bytes of a code. */
  readonly bytes: number;
  readonly scale: number;
  readonly offset: number;
}

/**
 * out[image] = the largest over its slots of starts[slot] + factors[image, slot] * (offset + scale * sum), where sum is over
 * the code's half bytes h: tables[h][the half byte], lower halves first.
 */
export function codeScan(memory: WasmMemory): (scan: CodeScan) => void {
  const program = new WasmFunction({
    tables: "i32",
    starts: "i32",
    codes: "i32",
    factors: "i32",
    out: "i32",
    images: "i32",
    blocks: "i32",
    bytes: "i32",
    scale: "f32",
    offset: "f32",
  });
  const { tables, starts, codes, factors, out, images, blocks, bytes, scale, offset } = program.parameters;
  const { image, block, byte, table, start } = program.locals("i32", ["image", "block", "byte", "table", "start"]);
  const { bytesOf, pairs, even, odd } = program.locals("v128", ["bytesOf", "pairs", "even", "odd"]);
  const { best, scales, offsets, low } = program.locals("v128", ["best", "scales", "offsets", "low"]);
  const half = (at: number, indices: readonly number[]) => i8x16.swizzle(v128.load(table.get, at), indices);
  /** Sums of all lanes go into `even` (with 256 times the odd lane's, modulo 65536), those of odd lanes into `odd`. */
  const addOneByte = [
    ...bytesOf.set(v128.load(codes.get)),
    ...pairs.set(
      i8x16.add(
        half(0, v128.and(bytesOf.get, low.get)),
        half(16, v128.and(i16x8.shiftRight(bytesOf.get, i32.const(4)), low.get)),
      ),
    ),
    ...even.set(i16x8.add(even.get, pairs.get)),
    ...odd.set(i16x8.add(odd.get, i16x8.shiftRight(pairs.get, i32.const(8)))),
    ...codes.set(i32.add(codes.get, i32.const(lanes))),
    ...table.set(i32.add(table.get, i32.const(32))),
  ];
  /** Four slots: their sums as integers, and which four of the block. */
  const compare = (sums: readonly number[], four: number) => {
    const factor = i32x4.shiftLeft(i32x4.extendLow(v128.loadHalf(factors.get, four * 8)), i32.const(16));
    const sum = f32x4.add(offsets.get, f32x4.mul(scales.get, f32x4.ofInts(sums)));
    const estimate = f32x4.add(v128.load(start.get, four * 16), f32x4.mul(factor, sum));
    return best.set(f32x4.larger(best.get, estimate));
  };
  const oneBlock = [
    ...even.set(i32x4.splat(i32.const(0))),
    ...odd.set(i32x4.splat(i32.const(0))),
    ...table.set(tables.get),
    ...loop(byte, bytes.get, 1, addOneByte),
    ...even.set(i16x8.sub(even.get, i16x8.shiftLeft(odd.get, i32.const(8)))),
    ...compare(i32x4.extendLow(even.get), 0),
    ...compare(i32x4.extendHigh(even.get), 1),
    ...compare(i32x4.extendLow(odd.get), 2),
    ...compare(i32x4.extendHigh(odd.get), 3),
    ...factors.set(i32.add(factors.get, i32.const(2 * lanes))),
    ...start.set(i32.add(start.get, i32.const(4 * lanes))),
  ];
  const oneImage = [
    ...best.set(f32x4.splat(f32.const(Number.NEGATIVE_INFINITY))),
    ...start.set(starts.get),
    ...loop(block, blocks.get, 1, oneBlock),
    ...f32.store(
      out.get,
      f32.max(
        f32.max(f32x4.lane(best.get, 0), f32x4.lane(best.get, 1)),
        f32.max(f32x4.lane(best.get, 2), f32x4.lane(best.get, 3)),
      ),
    ),
    ...out.set(i32.add(out.get, i32.const(4))),
  ];
  const body = [
    ...low.set(i8x16.splat(i32.const(15))),
    ...scales.set(f32x4.splat(scale.get)),
    ...offsets.set(f32x4.splat(offset.get)),
    ...loop(image, images.get, 1, oneImage),
  ];
  const run = program.compile(body, memory);
  return (scan) =>
    run(
      ...[scan.tables, scan.starts, scan.codes, scan.factors, scan.out, scan.images, scan.blocks, scan.bytes],
      ...[scan.scale, scan.offset],
    );
}

export interface Products {
  /** Bytes; signed 16-bit values: (rows, width). */
  readonly rows: number;
  /** The same: (columns, width). */
  readonly columns: number;
  /** Signed 32-bit: (rows, columns). */
  readonly out: number;
  readonly rowCount: number;
  /** A multiple of 4. */
  readonly columnCount: number;
  /** A multiple of 8; sums must fit 32 bits. */
  readonly width: number;
}

/** out[row, column] = the sum over the width of rows[row] * columns[column]. */
export function products(memory: WasmMemory): (product: Products) => void {
  const program = new WasmFunction({
    rows: "i32",
    columns: "i32",
    out: "i32",
    rowCount: "i32",
    columnCount: "i32",
    width: "i32",
  });
  const { rows, columns, out, rowCount, columnCount, width } = program.parameters;
  const { row, column, value, x, y, to, bytes } = program.locals("i32", [
    "row",
    "column",
    "value",
    "x",
    "y",
    "to",
    "bytes",
  ]);
  const four = [0, 1, 2, 3].map((i) => ({ i, column: program.local("i32"), sum: program.local("v128") }));
  const eight = program.local("v128");
  const eightValues = [
    ...eight.set(v128.load(i32.add(x.get, value.get))),
    ...four.flatMap((each) => {
      const other = v128.load(i32.add(each.column.get, value.get));
      return each.sum.set(i32x4.add(each.sum.get, i32x4.dot(eight.get, other)));
    }),
  ];
  const across = ({ get }: Variable) =>
    i32.add(i32.add(i32x4.lane(get, 0), i32x4.lane(get, 1)), i32.add(i32x4.lane(get, 2), i32x4.lane(get, 3)));
  const oneRow = [
    ...four.flatMap(({ sum }) => sum.set(i32x4.splat(i32.const(0)))),
    ...loop(value, bytes.get, 16, eightValues),
    ...four.flatMap(({ sum, i }) => i32.store(to.get, across(sum), 4 * i)),
    ...x.set(i32.add(x.get, bytes.get)),
    ...to.set(i32.add(to.get, i32.mul(columnCount.get, i32.const(4)))),
  ];
  const fourColumns = [
    ...four.flatMap((each) => each.column.set(i32.add(y.get, i32.mul(bytes.get, i32.const(each.i))))),
    ...x.set(rows.get),
    ...to.set(i32.add(out.get, i32.mul(column.get, i32.const(4)))),
    ...loop(row, rowCount.get, 1, oneRow),
    ...y.set(i32.add(y.get, i32.mul(bytes.get, i32.const(4)))),
  ];
  const body = [
    ...bytes.set(i32.mul(width.get, i32.const(2))),
    ...y.set(columns.get),
    ...loop(column, columnCount.get, 4, fourColumns),
  ];
  const run = program.compile(body, memory);
  return (product) =>
    run(product.rows, product.columns, product.out, product.rowCount, product.columnCount, product.width);
}
