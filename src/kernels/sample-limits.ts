// Sampling, second of three: which ids top-k and top-p leave.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { samplingWidth } from "./decode-state.ts";
import type { SampleScores } from "./sample-scores.ts";

/** A row is one workgroup's: one SIMD group on CPU drivers, else as many invocations as every adapter has. */
const lanesOn = { software: 8, gpu: 128 } as const;

/** of sampleScores -> (items, 3) u32 of (key, first, highest score f32 bits); see the shader for what they mean */
export function sampleLimits(k: Recorder, { scores, highs }: SampleScores, sampling: Tensor): Tensor {
  const [rows = 0, vocabulary = 0] = expectShape("sampleLimits", scores, ["rows", "vocabulary"]);
  const [chunks = 0] = expectShape("sampleLimits", highs, [rows, "chunks"]);
  expectShape("sampleLimits", sampling, [rows, samplingWidth]);
  const limits = k.scratch("limits", [rows, 3], "u32");
  k.launch("sample-limits", {
    inputs: { scores, highs, sampling },
    outputs: { limits },
    params: { vocabulary, chunks },
    constants: { lanes: k.softwareAdapter ? lanesOn.software : lanesOn.gpu },
    workgroups: [rows],
  });
  return limits;
}
