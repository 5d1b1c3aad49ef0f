// Checkpoint bytes become an f32 vector or table. Shader: shaders/convert-plain.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { elementCount, expectShape, type Tensor } from "../gpu/tensor.ts";
import { type SourceType, sourceTypes } from "./convert-weight.ts";
import { elementwise, overTwo } from "./workgroups.ts";

/**
 * `count` elements from the start of `bytes` (a u32 tensor) become the elements of `destination` (f32, any shape) from
 * `first` on, exactly.
 * @throws ShapeError
 */
export function convertPlain(
  k: Recorder,
  { bytes, type, count }: { bytes: Tensor; type: SourceType; count: number },
  destination: Tensor,
  first: number,
): void {
  const words = Math.ceil(count / (type === "f32" ? 1 : 2));
  expectShape("convertPlain", bytes, ["words"], "u32");
  expectShape("convertPlain", destination, destination.shape, "f32");
  if (first + count > elementCount(destination.shape) || elementCount(bytes.shape) < words) {
    throw new ShapeError(
      `convertPlain: expected ${count} elements from ${first} on to fit ${destination.name} ` +
        `(${destination.shape.join(", ")}), got ${bytes.shape[0]} words`,
    );
  }
  k.launch("convert-plain", {
    inputs: { source: bytes },
    outputs: { destination },
    params: { count, first },
    constants: { SOURCE: sourceTypes[type], WORKGROUP: elementwise },
    workgroups: overTwo(Math.ceil(count / elementwise)),
  });
}
