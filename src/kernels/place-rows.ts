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
  place(k, first, y, { items, count: counts[0], to: 0, shared: false });
  place(k, second, y, { items, count: counts[1], to: counts[0], shared: false });
  return y;
}

/** The same rows for every item. (count, width) -> (items * count, width) */
export function repeatRows(k: Recorder, x: Tensor, items: number): Tensor {
  const [count = 0, width = 0] = expectShape("repeatRows", x, ["rows", "width"], "f32");
  const y = k.scratch("repeated", [items * count, width]);
  place(k, x, y, { items, count, to: 0, shared: true });
  return y;
}

function place(
  k: Recorder,
  x: Tensor,
  y: Tensor,
  { items, count, to, shared }: { items: number; count: number; to: number; shared: boolean },
): void {
  const [rows = 0, width = 0] = y.shape;
  k.launch("place-rows", {
    inputs: { x },
    outputs: { y },
    params: { width, count, tokens: rows / items, to, itemStride: shared ? 0 : count },
    constants: { lanes },
    workgroups: [Math.ceil(width / lanes), count, items],
  });
}
