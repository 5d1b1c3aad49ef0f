// Partial log-sum-exp of logits, by chunks of the vocabulary.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { scanLanes, type VocabularyChunks } from "./vocabulary-chunks.ts";

/** logits (rows, vocabulary) f32 -> (rows, chunks, 2) f32 of (m, sum exp(logit - m)), m the chunk's maximum */
export function logSumExp(k: Recorder, logits: Tensor, cut: VocabularyChunks): Tensor {
  const [rows = 0, vocabulary = 0] = expectShape("logSumExp", logits, ["rows", "vocabulary"]);
  const partials = k.scratch("partials", [rows, cut.chunks, 2]);
  k.launch("log-sum-exp", {
    inputs: { logits },
    outputs: { partials },
    params: { vocabulary },
    constants: { lanes: scanLanes(k.softwareAdapter), chunk: cut.chunk },
    workgroups: [cut.chunks, rows],
  });
  return partials;
}
