// Root-mean-square normalisation of rows. Shader: shaders/rms-norm.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import type { RmsNorm } from "./weights.ts";
import { overTwo } from "./workgroups.ts";

/**
 * x / sqrt(mean of squares + eps) * gain * factor, per row. x: (rows, width) f32 -> same.
 * @throws ShapeError
 */
export function rmsNorm(k: Recorder, x: Tensor, { gain, eps }: RmsNorm, factor = 1): Tensor {
  const [rows = 0, width = 0] = expectShape("rmsNorm", x, ["rows", "width"], "f32");
  expectShape("rmsNorm", gain, [width], "f32");
  const y = k.scratch("y", [rows, width]);
  k.launch("rms-norm", {
    inputs: { x, gain },
    outputs: { y },
    params: { rows, width, eps, factor },
    // A CPU driver runs eight invocations as one vector; a row of one vector needs no waiting at barriers.
    constants: { WORKGROUP: k.softwareAdapter ? 8 : 64 },
    workgroups: overTwo(rows),
  });
  return y;
}
