// What attention is given, in every kernel of it.

import { ShapeError } from "../gpu/errors.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import type { Choice } from "../gpu/variants.ts";

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

/** What a kernel of attention is launched with, whatever its variant. Parameters are those of attention. */
export interface AttentionLaunch {
  readonly q: Columns;
  readonly key: Columns;
  readonly value: Columns;
  readonly sizes: AttentionSizes;
  /** The variant that this is a launch of; a launch without one cannot be refused. */
  readonly choice?: Choice;
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

/** Checked, as a kernel takes it: its params, and its constants that do not depend on the variant. @throws ShapeError */
export function attentionForm(q: Columns, key: Columns, sizes: AttentionSizes) {
  const { batch, queryTokens, keyTokens, heads, scale, keyLengths, positionBias, causal = false } = sizes;
  if (keyLengths) expectShape("attention", keyLengths, [batch], "u32");
  if (causal && queryTokens !== keyTokens) {
    throw new ShapeError(
      `attention: expected as many keys as queries to be causal, got ${keyTokens} and ${queryTokens}`,
    );
  }
  return {
    params: {
      heads,
      queryTokens,
      keyTokens,
      queryStride: rowStride(q, queryTokens, sizes),
      queryColumn: q.column,
      keyStride: rowStride(key, keyTokens, sizes),
      keyColumn: key.column,
      scale,
      reach: positionBias ? reachOf(positionBias, heads) : 0,
    },
    inputs: { q: q.rows, k: key.rows, lengths: keyLengths ?? q.rows, positionBias: positionBias ?? q.rows },
    constants: {
      HAS_LENGTHS: `${keyLengths !== undefined}`,
      HAS_POSITION_BIAS: `${positionBias !== undefined}`,
      CAUSAL: `${causal}`,
    },
  };
}
