// Token and position embeddings of a list of rows, out of the tied head's column segments.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import type { Linear } from "./weights.ts";

const lanes = 64;

/**
 * x[r] = head[:, token] + positions[position + offset] for rows with a token, zeros for padding rows; image slots are
 * left to embedPrompt, on the same x.
 * @param x (rows, width) f32, written in part by each launch.
 * @param head the tied head: inputs = width, columns = vocabulary.
 * @param positions (table rows, width) f32 or f16; null: a model without position embeddings.
 * @param cursors (rows, 4) u32 of (token, position, slot, sequence).
 */
export function embedTokens(
  k: Recorder,
  x: Tensor,
  head: Linear,
  positions: Tensor | null,
  cursors: Tensor,
  offset: number,
): void {
  const [rows = 0] = expectShape("embedTokens", x, ["rows", head.inputs]);
  if (positions) expectShape("embedTokens", positions, ["table rows", head.inputs]);
  expectShape("embedTokens", cursors, [rows, 4]);
  head.segments.forEach(({ weight, from, width }, i) => {
    const [stride = 0] = expectShape("embedTokens", weight, [head.inputs, "stride"]);
    k.launch("embed-tokens", {
      inputs: { weight, positions: positions ?? weight, cursors },
      outputs: { x },
      params: { width: head.inputs, stride, firstId: from, count: width, offset, pads: i === 0 ? 1 : 0 },
      constants: {
        lanes,
        weightHalf: `${weight.type === "f16"}`,
        hasPositions: `${positions !== null}`,
        positionsHalf: `${positions?.type === "f16"}`,
      },
      workgroups: [Math.ceil(head.inputs / lanes), rows],
    });
  });
}
