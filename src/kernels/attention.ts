// Bidirectional attention. Shader: shaders/attention.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";

/** The heads · headWidth columns of `rows` from `column` on: a part of a fused product, or all of its own. */
export interface Columns {
  readonly rows: Tensor;
  readonly column: number;
}

export interface AttentionSizes {
  readonly batch: number;
  readonly queryTokens: number;
  readonly keyTokens: number;
  readonly heads: number;
  readonly headWidth: number;
  /** Scores are multiplied by it; usually 1 / sqrt(headWidth). */
  readonly scale: number;
}

/**
 * softmax(scale · q·kᵀ)·v within each item and head, every query seeing every key.
 * q: (batch · queryTokens, any), k, v: (batch · keyTokens, any) f32 -> (batch · queryTokens, heads · headWidth).
 * @throws ShapeError
 */
export function attention(k: Recorder, q: Columns, key: Columns, value: Columns, sizes: AttentionSizes): Tensor {
  const { batch, queryTokens, keyTokens, heads, headWidth, scale } = sizes;
  const stride = ({ rows, column }: Columns, tokens: number): number => {
    const [width = 0] = expectShape("attention", rows, [batch * tokens, "width"], "f32");
    if (column + heads * headWidth <= width) return width;
    const columns = `${heads} heads of ${headWidth} from column ${column}`;
    throw new ShapeError(`attention: expected ${columns} within ${rows.name}, got (${rows.shape.join(", ")})`);
  };
  const strides = [stride(q, queryTokens), stride(key, keyTokens), stride(value, keyTokens)] as const;
  const aligned = [headWidth, q.column, key.column, value.column, ...strides].every((each) => each % 4 === 0);
  const y = k.scratch("y", [batch * queryTokens, heads * headWidth]);
  // One query per invocation where that leaves few workgroups, as for the 32 queries of a Q-Former.
  const tile = k.softwareAdapter ? { WORKGROUP: 8, QUERIES: 2 } : { WORKGROUP: 32, QUERIES: 1 };
  k.launch("attention", {
    inputs: { q: q.rows, k: key.rows, v: value.rows },
    outputs: { y },
    params: {
      heads,
      queryTokens,
      keyTokens,
      queryStride: strides[0],
      queryColumn: q.column,
      keyStride: strides[1],
      keyColumn: key.column,
      valueStride: strides[2],
      valueColumn: value.column,
      scale,
    },
    constants: { HEAD_WIDTH: headWidth, ALIGNED: aligned ? "true" : "false", ...tile },
    workgroups: [Math.ceil(queryTokens / (tile.WORKGROUP * tile.QUERIES)), heads, batch],
  });
  return y;
}
