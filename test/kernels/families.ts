// Kernels come in a family for CPU drivers and one for GPUs; tests run both on whatever adapter there is.

import type { Recorder } from "../../src/gpu/recorder.ts";

export const families = [
  { softwareAdapter: true, family: "CPU variant" },
  { softwareAdapter: false, family: "GPU variant" },
] as const;

/** The same recorder, asking for the other or the same family. */
export function asFamily(k: Recorder, softwareAdapter: boolean): Recorder {
  const { subgroupSize } = k;
  return { softwareAdapter, subgroupSize, scratch: k.scratch.bind(k), launch: k.launch.bind(k) };
}
