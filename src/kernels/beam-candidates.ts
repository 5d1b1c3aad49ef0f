// Beam search, second of three: the best continuations of each item over all of its beams.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import type { BeamScores } from "./beam-scores.ts";
import { room } from "./decode-state.ts";
import { scanLanes, type VocabularyChunks } from "./vocabulary-chunks.ts";

/** -> (items, keep, 2) u32 of (score f32 bits, beam * vocabulary + id), best first; of equal ones the lowest place */
export function beamCandidates(
  k: Recorder,
  { scores, best }: BeamScores,
  beams: number,
  keep: number,
  cut: VocabularyChunks,
): Tensor {
  const [rows = 0, vocabulary = 0] = expectShape("beamCandidates", scores, ["rows", "vocabulary"]);
  expectShape("beamCandidates", best, [rows, cut.chunks, 2]);
  const candidates = k.scratch("candidates", [rows / beams, keep, 2], "u32");
  k.launch("beam-candidates", {
    inputs: { scores, best },
    outputs: { candidates },
    params: { vocabulary, keep, beams, chunks: cut.chunks },
    constants: { lanes: scanLanes(k.softwareAdapter), chunk: cut.chunk, mostHeads: room(beams * cut.chunks, 16) },
    workgroups: [rows / beams],
  });
  return candidates;
}
