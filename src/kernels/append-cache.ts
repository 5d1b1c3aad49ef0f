// Keys and values of new rows into the cache.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";

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
  k.launch("append-cache", {
    inputs: { keys, values, cursors },
    outputs: { keyCache: cache.keys, valueCache: cache.values },
    params: { width, words },
    constants: { lanes, half: `${half}` },
    workgroups: [Math.ceil(words / lanes), rows],
  });
}
