// Rows of several tensors, item by item, in one. Shader: shaders/place-rows.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";

const lanes = 64;

/** The rows of each item: those of `first`, then those of `second`. (items * a, width), (items * b, width) -> (items * (a + b), width) */
export function joinRows(k: Recorder, first: Tensor, second: Tensor, items: number): Tensor {
  const [firstRows = 0, width = 0] = expectShape("joinRows", first, ["rows", "width"], "f32");
  const [secondRows = 0] = expectShape("joinRows", second, ["rows", width], "f32");
  if (firstRows % items !== 0 || secondRows % items !== 0) {
    throw new ShapeError(`joinRows: expected rows of ${items} items, got ${firstRows} and ${secondRows}`);
  }
  const counts = [firstRows / items, secondRows / items] as const;
  const y = k.scratch("joined", [firstRows + secondRows, width]);
  place(k, first, y, { items, count: counts[0], to: 0, itemStride: counts[0] });
  place(k, second, y, { items, count: counts[1], to: counts[0], itemStride: counts[1] });
  return y;
}

/** The same rows for every item. (count, width) -> (items * count, width) */
export function repeatRows(k: Recorder, x: Tensor, items: number): Tensor {
  const [count = 0, width = 0] = expectShape("repeatRows", x, ["rows", "width"], "f32");
  const y = k.scratch("repeated", [items * count, width]);
  place(k, x, y, { items, count, to: 0, itemStride: 0 });
  return y;
}

/** The first row of each item. (items * rows of an item, width) -> (items, width) */
export function firstRows(k: Recorder, x: Tensor, items: number): Tensor {
  const [rows = 0, width = 0] = expectShape("firstRows", x, ["rows", "width"], "f32");
  if (rows % items !== 0) throw new ShapeError(`firstRows: expected rows of ${items} items, got ${rows}`);
  const y = k.scratch("first", [items, width]);
  place(k, x, y, { items, count: 1, to: 0, itemStride: rows / items });
  return y;
}

function place(
  k: Recorder,
  x: Tensor,
  y: Tensor,
  { items, count, to, itemStride }: { items: number; count: number; to: number; itemStride: number },
): void {
  const [rows = 0, width = 0] = y.shape;
  k.launch("place-rows", {
    inputs: { x },
    outputs: { y },
    params: { width, count, tokens: rows / items, to, itemStride },
    constants: { lanes },
    workgroups: [Math.ceil(width / lanes), count, items],
  });
}
