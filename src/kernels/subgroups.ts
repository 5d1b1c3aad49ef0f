// Subgroups, where a kernel relies on how large they are.

import type { Recorder } from "../gpu/recorder.ts";

/** Invocations of a subgroup, where the adapter gives subgroups to kernels and all of them are this large; otherwise 0. */
export function subgroupSize({ variants: { report } }: Pick<Recorder, "variants">): number {
  const { features, subgroupMinSize, subgroupMaxSize } = report;
  return features.includes("subgroups") && subgroupMinSize === subgroupMaxSize ? subgroupMinSize : 0;
}
