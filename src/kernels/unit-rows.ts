// Rows scaled to length 1. Shader: shaders/unit-rows.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { overTwo } from "./workgroups.ts";

/**
 * x / max(|x|, 1e-12), per row; a row of zeros stays one. x: (rows, width) f32 -> same.
 * @throws ShapeError
 */
export function unitRows(k: Recorder, x: Tensor): Tensor {
  const [rows = 0, width = 0] = expectShape("unitRows", x, ["rows", "width"], "f32");
  const y = k.scratch("unit", [rows, width]);
  k.launch("unit-rows", {
    inputs: { x },
    outputs: { y },
    params: { rows, width },
    // A CPU driver runs eight invocations as one vector; a row of one vector needs no waiting at barriers.
    constants: { WORKGROUP: k.softwareAdapter ? 8 : 64 },
    workgroups: overTwo(rows),
  });
  return y;
}
