// The weights of attention before they are divided by their totals. Shader: shaders/attention-weights.wgsl

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
  /** (batch) u32: how many keys of each item count, at least one; those behind are padding. Left out: all of them. */
  readonly keyLengths?: Tensor;
  /**
   * (2 · reach + 1, heads) f32: what a score gets on top by how far the key lies behind its query, from -reach to reach
   * and beyond alike. Left out: nothing.
   */
  readonly positionBias?: Tensor;
  /** A query token sees the key tokens up to its own; there are as many of both. Left out: all that count. */
  readonly causal?: boolean;
}

/** For some items of a batch. weights: (items, heads, queryTokens, keyTokens), totals: (items, heads, queryTokens). */
export interface AttentionWeights {
  readonly firstItem: number;
  readonly items: number;
  readonly weights: Tensor;
  readonly totals: Tensor;
}

/** The farthest distance that a position bias (2 · reach + 1, heads) tells apart. @throws ShapeError */
export function reachOf(positionBias: Tensor, heads: number): number {
  const [distances = 0] = expectShape("attention", positionBias, ["distances", heads], "f32");
  if (distances % 2 === 1) return (distances - 1) / 2;
  throw new ShapeError(
    `attention: expected a position bias for as many distances behind as before a query, got ${distances} in all`,
  );
}

/** The columns of a row of `rows`, checked. @throws ShapeError */
export function rowStride({ rows, column }: Columns, tokens: number, sizes: AttentionSizes): number {
  const { batch, heads, headWidth } = sizes;
  const [width = 0] = expectShape("attention", rows, [batch * tokens, "width"], "f32");
  if (column + heads * headWidth <= width) return width;
  const columns = `${heads} heads of ${headWidth} from column ${column}`;
  throw new ShapeError(`attention: expected ${columns} within ${rows.name}, got (${rows.shape.join(", ")})`);
}

/**
 * exp(scale · q·kᵀ + position bias - largest) and its sums over the keys, for `items` items from `firstItem` on.
 * q: (batch · queryTokens, any), k: (batch · keyTokens, any) f32. @throws ShapeError
 */
export function attentionWeights(
  k: Recorder,
  q: Columns,
  key: Columns,
  sizes: AttentionSizes,
  { firstItem, items }: { firstItem: number; items: number },
): AttentionWeights {
  const { queryTokens, keyTokens, heads, headWidth, scale, keyLengths, positionBias } = sizes;
  if (keyLengths) expectShape("attention", keyLengths, [sizes.batch], "u32");
  const reach = positionBias ? reachOf(positionBias, heads) : 0;
  if (sizes.causal && queryTokens !== keyTokens) {
    throw new ShapeError(
      `attention: expected as many keys as queries to be causal, got ${keyTokens} and ${queryTokens}`,
    );
  }
  const weights = k.scratch("weights", [items, heads, queryTokens, keyTokens]);
  const totals = k.scratch("totals", [items, heads, queryTokens]);
  const queryStride = rowStride(q, queryTokens, sizes);
  const keyStride = rowStride(key, keyTokens, sizes);
  const columns = { queryStride, queryColumn: q.column, keyStride, keyColumn: key.column };
  // Few queries, as the 32 of a Q-Former or a short text, spread over more workgroups.
  const tile = k.softwareAdapter ? { WORKGROUP: 8, QUERIES: 8, KEYS: 4 } : { WORKGROUP: 32, QUERIES: 4, KEYS: 2 };
  k.launch("attention-weights", {
    inputs: { q: q.rows, k: key.rows, lengths: keyLengths ?? q.rows, positionBias: positionBias ?? q.rows },
    outputs: { weights, totals },
    params: { heads, headWidth, queryTokens, keyTokens, ...columns, firstItem, scale, reach },
    constants: {
      HAS_LENGTHS: keyLengths ? "true" : "false",
      HAS_POSITION_BIAS: positionBias ? "true" : "false",
      CAUSAL: sizes.causal ? "true" : "false",
      ...tile,
    },
    workgroups: [Math.ceil(queryTokens / tile.QUERIES), heads, items],
  });
  return { firstItem, items, weights, totals };
}
