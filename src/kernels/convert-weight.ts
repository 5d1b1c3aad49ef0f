// Checkpoint bytes become columns of a Linear's weight. Shader: shaders/convert-weight.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { elementCount, expectShape, type Tensor } from "../gpu/tensor.ts";

/** Element types of checkpoints. */
export type SourceType = "f32" | "f16" | "bf16";

/** As the shaders number them. */
export const sourceTypes = { f32: 0, f16: 1, bf16: 2 } as const;

/**
 * Rows of PyTorch's Linear.weight become columns of `destination`, converted to its type.
 * bytes: rows · inputs elements of `type` from its start on (a u32 tensor). destination: (inputs, stride) f32 or f16,
 * stride a multiple of 4. Row i becomes column `column + i`, and columns up to the next multiple of 4 become 0: `column`
 * is a multiple of 4, and so are the rows of every piece but a matrix's (or segment's) last.
 * @throws ShapeError
 */
export function convertWeight(
  k: Recorder,
  { bytes, type, rows, inputs }: { bytes: Tensor; type: SourceType; rows: number; inputs: number },
  destination: Tensor,
  column: number,
): void {
  const [stride = 0] = expectShape("convertWeight", destination, [inputs, "stride"]);
  const filled = Math.ceil(rows / 4) * 4;
  const words = Math.ceil((rows * inputs) / (type === "f32" ? 1 : 2));
  expectShape("convertWeight", bytes, ["words"], "u32");
  if (column % 4 !== 0 || stride % 4 !== 0 || column + filled > stride || elementCount(bytes.shape) < words) {
    throw new ShapeError(
      `convertWeight: expected ${rows} rows of ${inputs} to become columns of ${destination.name} ` +
        `(${destination.shape.join(", ")}) from a multiple of 4 on, got column ${column}, ${bytes.shape[0]} words`,
    );
  }
  k.launch("convert-weight", {
    inputs: { source: bytes },
    outputs: { destination },
    params: { rows, inputs, column, filled, stride },
    constants: { SOURCE: sourceTypes[type], F16: destination.type === "f16" ? "true" : "false" },
    workgroups: [Math.ceil(filled / 32), Math.ceil(inputs / 16)],
  });
}
