// Sampling, third of three: the id of each chunk that wins with its noise. greedyStep takes the best of them.

import { ShapeError } from "../gpu/errors.ts";
import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { type DecodeState, samplingWidth } from "./decode-state.ts";
import { scanLanes, type VocabularyChunks } from "./vocabulary-chunks.ts";

/** scores of sampleScores, limits of sampleLimits -> (items, chunks, 2) u32 of (value f32 bits, id) */
export function sampleBest(
  k: Recorder,
  scores: Tensor,
  limits: Tensor,
  state: DecodeState,
  sampling: Tensor,
  cut: VocabularyChunks,
): Tensor {
  const { items, vocabulary, progress } = state;
  expectShape("sampleBest", scores, [items, vocabulary]);
  expectShape("sampleBest", limits, [items, 3]);
  expectShape("sampleBest", sampling, [items, samplingWidth]);
  expectShape("sampleBest", progress, [items, 3]);
  if (cut.chunk % 4 !== 0) throw new ShapeError(`sampleBest: expected chunks of a multiple of 4 ids, got ${cut.chunk}`);
  const best = k.scratch("best", [items, cut.chunks, 2], "u32");
  k.launch("sample-best", {
    inputs: { scores, limits, sampling, progress },
    outputs: { best },
    params: { vocabulary },
    constants: { lanes: scanLanes(k.softwareAdapter), chunk: cut.chunk },
    workgroups: [cut.chunks, items],
  });
  return best;
}
