// A tensor is a named, shaped view of one GPU buffer (or of scratch that a recording has yet to place).

import { ShapeError } from "./errors.ts";

/**
 * How the elements lie in the buffer. `f16` is two halves packed in one u32, low half first, so that
 * it needs no `shader-f16`; the last dimension of an f16 tensor is therefore even. `int8` and `int4` are matrices of
 * (inputs, columns), columns a multiple of 4: whole numbers with a scale for every `groupSize` inputs of a column, as
 * shaders/quantize-weight.wgsl writes them.
 */
export type ElementType = "f32" | "f16" | "u32" | "i32" | "int8" | "int4";

/** Whole numbers in words, with scales; see ElementType. */
export function isPacked(type: ElementType): type is "int8" | "int4" {
  return type === "int8" || type === "int4";
}

/** Inputs of a column that share a scale under int8 and int4. */
export const groupSize = 32;

/** Row-major data of `shape` on the GPU. Scratch tensors have no buffer until their recording is finished. */
export interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: ElementType;
  /** Where it lives; undefined for scratch while it is being recorded. */
  readonly storage: GPUBuffer | undefined;
  /** Bytes from the start of `storage`; a multiple of the device's storage offset alignment. */
  readonly byteOffset: number;
}

/** Number of elements of a shape; 1 for the empty shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Bytes that a tensor of this shape and type occupies, rounded up to 4. */
export function byteLength(shape: readonly number[], type: ElementType): number {
  if (isPacked(type)) {
    const [inputs = 0, columns = 0] = shape;
    const scaleBytes = 2;
    return Math.ceil(inputs / groupSize) * columns * ((groupSize * (type === "int8" ? 8 : 4)) / 8 + scaleBytes);
  }
  const bytes = elementCount(shape) * (type === "f16" ? 2 : 4);
  return Math.ceil(bytes / 4) * 4;
}

/**
 * Check a tensor's shape against numbers (exact) and names (any size, returned in order), and its type where given.
 * @throws ShapeError naming the operation, the tensor, both shapes.
 */
export function expectShape(
  where: string,
  tensor: Tensor,
  expected: readonly (number | string)[],
  type?: ElementType,
): number[] {
  const matches =
    tensor.shape.length === expected.length &&
    expected.every((size, i) => typeof size === "string" || size === tensor.shape[i]);
  if (!matches) {
    throw new ShapeError(
      `${where}: expected ${tensor.name} to be (${expected.join(", ")}), got (${tensor.shape.join(", ")})`,
    );
  }
  if (type !== undefined && tensor.type !== type) {
    throw new ShapeError(`${where}: expected ${tensor.name} to be ${type}, got ${tensor.type}`);
  }
  return tensor.shape.filter((_, i) => typeof expected[i] === "string");
}
