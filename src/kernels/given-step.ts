// A step along ids that are given: their log-probabilities, where generation would choose.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { type DecodeState, settingsHead } from "./decode-state.ts";
import { scanLanes } from "./vocabulary-chunks.ts";

/**
 * given (rows, newRows) u32 -> state.progress, state.choice, in place; the running scores are sums of log-probabilities.
 * @param logits (rows, vocabulary) f32, or (items, vocabulary) at the first step, when an item's sequences share theirs.
 * @param partials of logSumExp over the same logits.
 */
export function givenStep(k: Recorder, logits: Tensor, partials: Tensor, given: Tensor, state: DecodeState): void {
  const { items, beams, newRows, vocabulary, settings, progress, choice } = state;
  const rows = items * beams;
  const [sources = 0] = expectShape("givenStep", logits, ["rows", vocabulary]);
  if (sources !== rows && sources !== items) {
    throw new ShapeError(`givenStep: expected logits of ${rows} rows or ${items} items, got ${sources}`);
  }
  const [chunks = 0] = expectShape("givenStep", partials, [sources, "chunks", 2]);
  expectShape("givenStep", given, [rows, newRows]);
  expectShape("givenStep", progress, [items, 2 + beams]);
  k.launch("given-step", {
    inputs: { logits, partials, given, settings },
    outputs: { progress, choice },
    params: {
      vocabulary,
      chunks,
      settingsWidth: settingsHead + newRows,
      newRows,
      perItem: sources === rows ? 0 : 1,
      beams,
    },
    constants: { lanes: scanLanes(k.softwareAdapter) },
    workgroups: [items],
  });
}
