// Sampling, first of three: scores after penalties and temperature.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { type DecodeState, samplingWidth, settingsHead } from "./decode-state.ts";
import { scanLanes, type VocabularyChunks } from "./vocabulary-chunks.ts";

export interface SampleScores {
  /** (items, vocabulary) f32 */
  readonly scores: Tensor;
  /** (items, chunks) f32: the highest score of each chunk */
  readonly highs: Tensor;
}

/** logits (items, vocabulary) f32; sampling (items, 8) u32 of decode-state.ts */
export function sampleScores(
  k: Recorder,
  logits: Tensor,
  state: DecodeState,
  sampling: Tensor,
  cut: VocabularyChunks,
): SampleScores {
  const { items, vocabulary, seen, settings, progress, stopIds } = state;
  expectShape("sampleScores", logits, [items, vocabulary]);
  expectShape("sampleScores", sampling, [items, samplingWidth]);
  expectShape("sampleScores", progress, [items, 3]);
  const [seenWords = 0] = expectShape("sampleScores", seen, [items, "words"]);
  const scores = k.scratch("scores", [items, vocabulary]);
  const highs = k.scratch("highs", [items, cut.chunks]);
  k.launch("sample-scores", {
    inputs: { logits, seen, settings, progress, stopIds, sampling },
    outputs: { scores, highs },
    params: { vocabulary, seenWords, settingsWidth: settingsHead + state.newRows, stopCount: state.stopCount },
    constants: { lanes: scanLanes(k.softwareAdapter), chunk: cut.chunk },
    workgroups: [cut.chunks, items],
  });
  return { scores, highs };
}
