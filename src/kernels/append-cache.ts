// Keys and values of new rows into the cache. Shader: shaders/append-cache.wgsl

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import type { Columns } from "./attention-sizes.ts";

const lanes = 64;

/** One layer's keys and values, (slots, stride) each, f32 or f16; stride is the width, rounded up to even under f16. */
export interface LayerCache {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/**
 * cache[slot of row r] = keys[r], values[r]; f16 rounds to nearest even. Rows without slot write nothing.
 * @param keys (rows, width) f32.
 * @param values (rows, width) f32.
 * @param cursors (rows, 4) u32 of (token, position, slot, sequence).
 */
export function appendCache(k: Recorder, keys: Tensor, values: Tensor, cursors: Tensor, cache: LayerCache): void {
  const [rows = 0, width = 0] = expectShape("appendCache", keys, ["rows", "width"]);
  expectShape("appendCache", values, [rows, width]);
  const own = k.scratch("no queries", [1]);
  launchAppending(k, { keys: whole(keys), values: whole(values) }, own, { rows, width, cursors }, cache);
}

/**
 * The same with columns of fused products, from which the queries come out.
 * @param parts `width` columns each of (rows, any) f32.
 * @returns the queries (rows, width) f32; of all rows, with slot or without.
 */
export function splitIntoCache(
  k: Recorder,
  parts: { readonly queries: Columns; readonly keys: Columns; readonly values: Columns },
  width: number,
  cursors: Tensor,
  cache: LayerCache,
): Tensor {
  const [rows = 0] = expectShape("appendCache", cursors, ["rows", 4]);
  const queries = k.scratch("queries", [rows, width]);
  launchAppending(k, parts, queries, { rows, width, cursors }, cache);
  return queries;
}

function launchAppending(
  k: Recorder,
  { queries, keys, values }: { readonly queries?: Columns; readonly keys: Columns; readonly values: Columns },
  own: Tensor,
  { rows, width, cursors }: { readonly rows: number; readonly width: number; readonly cursors: Tensor },
  cache: LayerCache,
): void {
  expectShape("appendCache", cursors, [rows, 4]);
  const half = cache.keys.type === "f16";
  const stride = half ? Math.ceil(width / 2) * 2 : width;
  const [slots = 0] = expectShape("appendCache", cache.keys, ["slots", stride]);
  expectShape("appendCache", cache.values, [slots, stride]);
  if (cache.values.type !== cache.keys.type) {
    throw new ShapeError(
      `appendCache: expected keys and values of one type, got ${cache.keys.type}, ${cache.values.type}`,
    );
  }
  const words = half ? stride / 2 : stride;
  const asked = queries ?? keys;
  k.launch("append-cache", {
    inputs: { queries: asked.rows, keys: keys.rows, values: values.rows, cursors },
    outputs: { ownQueries: own, keyCache: cache.keys, valueCache: cache.values },
    params: {
      width,
      words,
      queryStride: strideOf(asked, rows, width),
      queryColumn: asked.column,
      keyStride: strideOf(keys, rows, width),
      keyColumn: keys.column,
      valueStride: strideOf(values, rows, width),
      valueColumn: values.column,
    },
    constants: { lanes, half: `${half}`, hasQueries: `${queries !== undefined}` },
    workgroups: [Math.ceil(words / lanes), rows],
  });
}

function whole(rows: Tensor): Columns {
  return { rows, column: 0 };
}

/** @throws ShapeError */
function strideOf({ rows: tensor, column }: Columns, rows: number, width: number): number {
  const [stride = 0] = expectShape("appendCache", tensor, [rows, "width"], "f32");
  if (column + width <= stride) return stride;
  throw new ShapeError(
    `appendCache: expected ${width} columns from ${column} on within ${tensor.name}, got (${tensor.shape.join(", ")})`,
  );
}
