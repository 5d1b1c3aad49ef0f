// Greedy decoding, first half: the best id of each chunk of the vocabulary after the penalties.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { type DecodeState, settingsHead } from "./decode-state.ts";
import { scanLanes, type VocabularyChunks } from "./vocabulary-chunks.ts";

/** logits (items, vocabulary) f32 -> (items, chunks, 2) u32 of (score f32 bits, id); of equal scores the lowest id */
export function greedyScores(k: Recorder, logits: Tensor, state: DecodeState, cut: VocabularyChunks): Tensor {
  const { items, vocabulary, seen, settings, progress, stopIds } = state;
  expectShape("greedyScores", logits, [items, vocabulary]);
  const [seenWords = 0] = expectShape("greedyScores", seen, [items, "words"]);
  expectShape("greedyScores", progress, [items, 3]);
  const best = k.scratch("best", [items, cut.chunks, 2], "u32");
  k.launch("greedy-scores", {
    inputs: { logits, seen, settings, progress, stopIds },
    outputs: { best },
    params: { vocabulary, seenWords, settingsWidth: settingsHead + state.newRows, stopCount: state.stopCount },
    constants: { lanes: scanLanes(k.softwareAdapter), chunk: cut.chunk },
    workgroups: [cut.chunks, items],
  });
  return best;
}
