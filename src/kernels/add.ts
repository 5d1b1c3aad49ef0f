// Sums of rows, the shorter operand repeated. Shader: shaders/add.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { elementwise, overTwo } from "./workgroups.ts";

/**
 * x + addend, the rows of the shorter repeated. (rows, width), (dividing rows, width) -> (rows, width) f32.
 * @throws ShapeError
 */
export function add(k: Recorder, x: Tensor, addend: Tensor): Tensor {
  const [xRows = 0, width = 0] = expectShape("add", x, ["rows", "width"], "f32");
  const [addendRows = 0] = expectShape("add", addend, ["rows", width], "f32");
  const rows = Math.max(xRows, addendRows);
  if (rows % xRows !== 0 || rows % addendRows !== 0) {
    throw new ShapeError(`add: expected rows of ${addend.name} to repeat in ${x.name}, got ${addendRows} and ${xRows}`);
  }
  const y = k.scratch("sum", [rows, width]);
  k.launch("add", {
    inputs: { x, addend },
    outputs: { y },
    params: { rows, xRows, addendRows, width },
    constants: { WORKGROUP: elementwise },
    workgroups: overTwo(Math.ceil((rows * width) / elementwise)),
  });
  return y;
}
