// The parts that cached attention left of a row's spans, together. Shader: shaders/cached-attention-join.wgsl

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import type { CachedForm } from "./cached-form.ts";

/** Parts of the rows from `firstRow` on: (rows, heads, spans, headDim + 2) f32 of sums, total and highest score. */
export interface CachedParts {
  readonly partial: Tensor;
  readonly firstRow: number;
  /** Positions of a span. */
  readonly span: number;
}

/** Write those rows of attended (all rows, heads * headDim). @throws ShapeError */
export function cachedAttentionJoin(
  k: Recorder,
  { heads, headDim, inputs, constants, choice }: CachedForm,
  { partial, firstRow, span }: CachedParts,
  attended: Tensor,
): void {
  const expected = ["rows", heads, "spans", headDim + 2] as const;
  const [rows = 0, spans = 0] = expectShape("cachedAttentionJoin", partial, expected, "f32");
  k.launch("cached-attention-join", {
    inputs: { partial, cursors: inputs.cursors, contexts: inputs.contexts },
    outputs: { attended },
    params: { heads, spans, firstRow },
    constants: { lanes: 64, headDim, span, hasContexts: constants.hasContexts },
    workgroups: [heads, rows],
    ...(choice && { choice }),
  });
}
