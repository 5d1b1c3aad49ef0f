// Activations leave a stage in the type that travels. Shader: shaders/hand-over.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { elementCount, expectShape, type Tensor } from "../gpu/tensor.ts";
import type { ActivationType } from "../stages.ts";
import { elementwise, overTwo } from "./workgroups.ts";

/**
 * x as f32 (a copy) or as f16, rounded to nearest, ties to even. x: (rows, width) f32 -> (rows, width) of `type`.
 * @throws ShapeError
 */
export function handOver(k: Recorder, x: Tensor, type: ActivationType): Tensor {
  const shape = expectShape("handOver", x, ["rows", "width"], "f32");
  const y = k.scratch("activation", shape, type);
  const count = elementCount(shape);
  const words = type === "f16" ? Math.ceil(count / 2) : count;
  k.launch("hand-over", {
    inputs: { x },
    outputs: { y },
    params: { count },
    constants: { F16: type === "f16" ? "true" : "false", WORKGROUP: elementwise },
    workgroups: overTwo(Math.ceil(words / elementwise)),
  });
  return y;
}
