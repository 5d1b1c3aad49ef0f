// What passes between the parts of a model.

import { ShapeError } from "../gpu/errors.ts";
import type { Tensor } from "../gpu/tensor.ts";

/** A tensor that the part before should have left. @throws ShapeError when it left none */
export function given(tensor: Tensor | null | undefined): Tensor {
  if (!tensor) throw new ShapeError("model: expected a tensor from the part before, got none");
  return tensor;
}
