// The pairs of positions of rows that are context or follow one. Shader: shaders/block-positions.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";

const lanes = 64;

/**
 * GLM's: in the context a row's own position and 0; behind it the context's last position and 1, 2, 3, …
 * @param cursors (rows, 4) u32 of (token, position, slot, sequence).
 * @param contexts (sequences) u32: the positions of each context, at least 1.
 * @returns (rows, 2) u32; `none` twice for a row without position
 */
export function blockPositions(k: Recorder, cursors: Tensor, contexts: Tensor): Tensor {
  const [rows = 0] = expectShape("blockPositions", cursors, ["rows", 4], "u32");
  expectShape("blockPositions", contexts, ["sequences"], "u32");
  const pairs = k.scratch("positions", [rows, 2], "u32");
  k.launch("block-positions", {
    inputs: { cursors, contexts },
    outputs: { pairs },
    params: { rows },
    constants: { lanes },
    workgroups: [Math.ceil(rows / lanes)],
  });
  return pairs;
}
