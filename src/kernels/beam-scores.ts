// Beam search, first of three: log-probabilities after the penalties, with the running scores added.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { type DecodeState, settingsHead } from "./decode-state.ts";
import { scanLanes, type VocabularyChunks } from "./vocabulary-chunks.ts";

export interface BeamScores {
  /** (rows, vocabulary) f32 */
  readonly scores: Tensor;
  /** (rows, chunks, 2) u32 of (score f32 bits, id): the best of each chunk, of equal ones the lowest id */
  readonly best: Tensor;
}

/**
 * @param logits (rows, vocabulary) f32.
 * @param partials of logSumExp over the same logits.
 */
export function beamScores(
  k: Recorder,
  logits: Tensor,
  partials: Tensor,
  state: DecodeState,
  cut: VocabularyChunks,
): BeamScores {
  const { items, beams, vocabulary, seen, settings, progress, stopIds } = state;
  expectShape("beamScores", logits, [items * beams, vocabulary]);
  expectShape("beamScores", partials, [items * beams, cut.chunks, 2]);
  const [seenWords = 0] = expectShape("beamScores", seen, [items * beams, "words"]);
  const scores = k.scratch("scores", [items * beams, vocabulary]);
  const best = k.scratch("best", [items * beams, cut.chunks, 2], "u32");
  k.launch("beam-scores", {
    inputs: { logits, partials, seen, settings, progress, stopIds },
    outputs: { scores, best },
    params: {
      vocabulary,
      seenWords,
      settingsWidth: settingsHead + state.newRows,
      stopCount: state.stopCount,
      beams,
    },
    constants: { lanes: scanLanes(k.softwareAdapter), chunk: cut.chunk },
    workgroups: [cut.chunks, items * beams],
  });
  return { scores, best };
}
