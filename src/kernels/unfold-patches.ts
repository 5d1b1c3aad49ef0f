// Pixels as rows of patches. Shader: shaders/unfold-patches.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { elementCount, expectShape, type Tensor } from "../gpu/tensor.ts";
import { elementwise, overTwo } from "./workgroups.ts";

/**
 * Square patches of `size` pixels, left to right, then down; the columns in the order of a convolution weight.
 * pixels: (batch, channels, height, width) -> (batch · patches, channels · size · size) f32. Pixels beyond the last
 * whole patch are left out, as by the convolution.
 * @throws ShapeError
 */
export function unfoldPatches(k: Recorder, pixels: Tensor, size: number): Tensor {
  const named = ["batch", "channels", "height", "width"];
  const [batch = 0, channels = 0, height = 0, width = 0] = expectShape("unfoldPatches", pixels, named, "f32");
  const patches = Math.floor(height / size) * Math.floor(width / size);
  const y = k.scratch("patches", [batch * patches, channels * size * size]);
  const count = elementCount(y.shape);
  k.launch("unfold-patches", {
    inputs: { pixels },
    outputs: { y },
    params: { count, channels, height, width, size },
    constants: { WORKGROUP: elementwise },
    workgroups: overTwo(Math.ceil(count / elementwise)),
  });
  return y;
}
