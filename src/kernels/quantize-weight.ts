// Checkpoint bytes become columns of a Linear's int8 or int4 weight. Shader: shaders/quantize-weight.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { elementCount, expectShape, groupSize, isPacked, type Tensor } from "../gpu/tensor.ts";
import { type SourceType, sourceTypes } from "./convert-weight.ts";

/** Rows and groups of a workgroup. */
const tile = { rows: 16, groups: 8 };

/** Where it is told that one of the values is inf or NaN: refused, (1) u32, becomes at least `number`, which is not 0. */
export interface QuantizeNotice {
  readonly refused: Tensor;
  readonly number: number;
}

/**
 * As convertWeight, into a destination of int8 or int4.
 * @throws ShapeError
 */
export function quantizeWeight(
  k: Recorder,
  { bytes, type, rows, inputs }: { bytes: Tensor; type: SourceType; rows: number; inputs: number },
  destination: Tensor,
  column: number,
  { refused, number }: QuantizeNotice,
): void {
  const [stride = 0] = expectShape("quantizeWeight", destination, [inputs, "stride"]);
  const filled = Math.ceil(rows / 4) * 4;
  const words = Math.ceil((rows * inputs) / (type === "f32" ? 1 : 2));
  expectShape("quantizeWeight", bytes, ["words"], "u32");
  expectShape("quantizeWeight", refused, [1], "u32");
  if (!isPacked(destination.type)) {
    throw new ShapeError(`quantizeWeight: expected ${destination.name} to be int8 or int4, got ${destination.type}`);
  }
  if (column % 4 !== 0 || stride % 4 !== 0 || column + filled > stride || elementCount(bytes.shape) < words) {
    throw new ShapeError(
      `quantizeWeight: expected ${rows} rows of ${inputs} to become columns of ${destination.name} ` +
        `(${destination.shape.join(", ")}) from a multiple of 4 on, got column ${column}, ${bytes.shape[0]} words`,
    );
  }
  k.launch("quantize-weight", {
    inputs: { source: bytes },
    outputs: { destination, refused },
    params: { rows, inputs, column, filled, stride, number },
    constants: { SOURCE: sourceTypes[type], BITS: destination.type === "int8" ? 8 : 4 },
    workgroups: [Math.ceil(filled / tile.rows), Math.ceil(Math.ceil(inputs / groupSize) / tile.groups)],
  });
}
