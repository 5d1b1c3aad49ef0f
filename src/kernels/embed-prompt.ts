// The image slots of a prefill: visual prompt plus position embedding.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";

const lanes = 64;

/**
 * x[item, t] = prompt[item, t] + positions[t + offset] for t < queries.
 * @param x (items * tokens, width) f32; rows of text and padding are left to embedTokens.
 * @param prompt (items, itemStride) f32 or f16: each item's (queries, width) first, then padding.
 * @param positions (table rows, width) f32 or f16; null: a model without position embeddings.
 */
export function embedPrompt(
  k: Recorder,
  x: Tensor,
  prompt: Tensor,
  positions: Tensor | null,
  queries: number,
  offset: number,
): void {
  const [rows = 0, width = 0] = expectShape("embedPrompt", x, ["rows", "width"]);
  const [items = 0, itemStride = 0] = expectShape("embedPrompt", prompt, ["items", "itemStride"]);
  if (positions) expectShape("embedPrompt", positions, ["table rows", width]);
  if (rows % items !== 0 || rows / items < queries || itemStride < queries * width) {
    throw new ShapeError(
      `embedPrompt: expected x of ${items} items with at least ${queries} rows each and a prompt of at least ` +
        `${queries * width} values each, got ${rows} rows and ${itemStride} values`,
    );
  }
  k.launch("embed-prompt", {
    inputs: { prompt, positions: positions ?? prompt },
    outputs: { x },
    params: { width, tokens: rows / items, itemStride, offset },
    constants: {
      lanes,
      promptHalf: `${prompt.type === "f16"}`,
      hasPositions: `${positions !== null}`,
      positionsHalf: `${positions?.type === "f16"}`,
    },
    workgroups: [Math.ceil(width / lanes), queries, items],
  });
}
