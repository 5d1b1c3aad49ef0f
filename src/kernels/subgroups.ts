// Subgroups, where a kernel relies on how large they are.

import type { AdapterReport } from "../gpu/adapter.ts";
import type { Recorder } from "../gpu/recorder.ts";

/** Why a kernel whose workgroup is one subgroup does not fit an adapter, or null where all subgroups are of one size. */
export function unequalSubgroups({ subgroupMinSize, subgroupMaxSize }: AdapterReport): string | null {
  if (subgroupMinSize === subgroupMaxSize) return null;
  return `needs subgroups of one size, got ${subgroupMinSize} to ${subgroupMaxSize}`;
}

/** Invocations of a subgroup, on an adapter where all are of one size. */
export function subgroupSize({ variants: { report } }: Pick<Recorder, "variants">): number {
  return report.subgroupMinSize;
}
