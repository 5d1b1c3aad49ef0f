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
  return launch(k, { x, addend, rows, xRows, addendRows, width });
}

/** The rows of x `times` times over: every item of a batch gets its own. (rows, width) -> (times · rows, width) f32. */
export function repeatRows(k: Recorder, x: Tensor, times: number): Tensor {
  const [xRows = 0, width = 0] = expectShape("repeatRows", x, ["rows", "width"], "f32");
  return launch(k, { x, rows: times * xRows, xRows, addendRows: 1, width });
}

interface Operands {
  readonly x: Tensor;
  readonly addend?: Tensor;
  readonly rows: number;
  readonly xRows: number;
  readonly addendRows: number;
  readonly width: number;
}

function launch(k: Recorder, { x, addend, ...params }: Operands): Tensor {
  const y = k.scratch("sum", [params.rows, params.width]);
  k.launch("add", {
    inputs: { x, addend: addend ?? x },
    outputs: { y },
    params,
    constants: { HAS_ADDEND: addend ? "true" : "false", WORKGROUP: elementwise },
    workgroups: overTwo(Math.ceil((params.rows * params.width) / elementwise)),
  });
  return y;
}
