// Class and position embeddings of a ViT. Shader: shaders/embed-patches.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { elementCount, expectShape, type Tensor } from "../gpu/tensor.ts";
import { elementwise, overTwo } from "./workgroups.ts";

/**
 * [class; patches] + position for every item. x: (batch · patches, width), classEmbedding: (width),
 * position: (patches + 1, width) -> (batch · (patches + 1), width) f32.
 * @throws ShapeError
 */
export function embedPatches(k: Recorder, x: Tensor, classEmbedding: Tensor, position: Tensor, batch: number): Tensor {
  const [tokens = 0, width = 0] = expectShape("embedPatches", position, ["tokens", "width"], "f32");
  const patches = tokens - 1;
  expectShape("embedPatches", x, [batch * patches, width], "f32");
  expectShape("embedPatches", classEmbedding, [width], "f32");
  const y = k.scratch("tokens", [batch * tokens, width]);
  const count = elementCount(y.shape);
  k.launch("embed-patches", {
    inputs: { x, classEmbedding, position },
    outputs: { y },
    params: { count, patches, width },
    constants: { WORKGROUP: elementwise },
    workgroups: overTwo(Math.ceil(count / elementwise)),
  });
  return y;
}
