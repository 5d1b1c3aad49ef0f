// The mean of each item's rows. Shader: shaders/mean-rows.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { elementwise, overTwo } from "./workgroups.ts";

/**
 * x: (items * rows of an item, width) f32 -> (items, width).
 * @throws ShapeError
 */
export function meanRows(k: Recorder, x: Tensor, items: number): Tensor {
  const [rows = 0, width = 0] = expectShape("meanRows", x, ["rows", "width"], "f32");
  if (rows % items !== 0) throw new ShapeError(`meanRows: expected rows of ${items} items, got ${rows}`);
  const y = k.scratch("mean", [items, width]);
  k.launch("mean-rows", {
    inputs: { x },
    outputs: { y },
    params: { items, count: rows / items, width },
    constants: { WORKGROUP: elementwise },
    workgroups: overTwo(Math.ceil((items * width) / elementwise)),
  });
  return y;
}
