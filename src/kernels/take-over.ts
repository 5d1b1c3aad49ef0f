// The inverse of hand-over. Shader: shaders/take-over.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { elementCount, expectShape, type Tensor } from "../gpu/tensor.ts";
import { elementwise, overTwo } from "./workgroups.ts";

/**
 * An activation as f32, exactly; f32 comes back as it is. x: (rows, width) f32 or f16 -> (rows, width) f32.
 * @throws ShapeError
 */
export function takeOver(k: Recorder, x: Tensor): Tensor {
  const shape = expectShape("takeOver", x, ["rows", "width"]);
  if (x.type === "f32") return x;
  expectShape("takeOver", x, shape, "f16");
  const y = k.scratch("activation", shape);
  const count = elementCount(shape);
  k.launch("take-over", {
    inputs: { x },
    outputs: { y },
    params: { count },
    constants: { WORKGROUP: elementwise },
    workgroups: overTwo(Math.ceil(count / elementwise)),
  });
  return y;
}
