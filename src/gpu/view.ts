// The same bytes under another shape. Works for scratch too, whose buffer is chosen only later.

import { ShapeError } from "./errors.ts";
import { byteLength, type ElementType, type Tensor } from "./tensor.ts";

class View implements Tensor {
  readonly origin: Tensor;
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: ElementType;
  readonly #from: number;

  constructor(origin: Tensor, name: string, shape: readonly number[], from: number) {
    this.origin = origin;
    this.name = name;
    this.shape = shape;
    this.type = origin.type;
    this.#from = from;
  }

  get storage(): GPUBuffer | undefined {
    return this.origin.storage;
  }

  get byteOffset(): number {
    return this.origin.byteOffset + this.#from;
  }
}

/**
 * The elements of `tensor` from `byteOffset` on, as `shape`. No copy. A view counts as its whole tensor: one launch may
 * not read one view and write another of the same tensor.
 * @param byteOffset a multiple of 256, the largest storage offset alignment of any adapter.
 * @throws ShapeError if the view does not fit into the tensor.
 */
export function view(tensor: Tensor, shape: readonly number[], byteOffset = 0): Tensor {
  const bytes = byteLength(shape, tensor.type);
  const available = byteLength(tensor.shape, tensor.type) - byteOffset;
  if (bytes > available || byteOffset < 0 || byteOffset % 256 !== 0) {
    throw new ShapeError(
      `view: expected (${shape.join(", ")}) at byte ${byteOffset} (a multiple of 256) to lie inside ${tensor.name} ` +
        `(${tensor.shape.join(", ")}), got ${bytes} bytes of ${available}`,
    );
  }
  return new View(tensor, tensor.name, shape, byteOffset);
}

/** The tensor that a view, or a view of a view, is of. */
export function originOf(tensor: Tensor): Tensor {
  return tensor instanceof View ? originOf(tensor.origin) : tensor;
}
