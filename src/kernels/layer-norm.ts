// Layer normalisation of rows. Shader: shaders/layer-norm.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import type { Norm } from "./weights.ts";
import { overTwo } from "./workgroups.ts";

/**
 * (x - mean) / sqrt(variance + eps) * gain + bias, per row. x: (rows, width) f32 -> same.
 * @throws ShapeError
 */
export function layerNorm(k: Recorder, x: Tensor, { gain, bias, eps }: Norm): Tensor {
  const [rows = 0, width = 0] = expectShape("layerNorm", x, ["rows", "width"], "f32");
  expectShape("layerNorm", gain, [width], "f32");
  expectShape("layerNorm", bias, [width], "f32");
  const y = k.scratch("y", [rows, width]);
  k.launch("layer-norm", {
    inputs: { x, gain, bias },
    outputs: { y },
    params: { rows, width, eps },
    // A CPU driver runs eight invocations as one vector; a row of one vector needs no waiting at barriers.
    constants: { WORKGROUP: k.softwareAdapter ? 8 : 64 },
    workgroups: overTwo(rows),
  });
  return y;
}
