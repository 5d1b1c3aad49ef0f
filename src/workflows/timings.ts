// Sums of what the stages did, stage by stage.

import type { Stage, StageTimings, StageWork } from "../messages/job.ts";

export function addTimings(a: StageTimings, b: StageTimings): StageTimings {
  const sum: Partial<Record<Stage, StageWork>> = { ...a };
  for (const stage of ["encode", "query", "generate"] as const) {
    const more = b[stage];
    if (more === undefined) continue;
    const { made, reused, milliseconds } = sum[stage] ?? { made: 0, reused: 0, milliseconds: 0 };
    sum[stage] = {
      made: made + more.made,
      reused: reused + more.reused,
      milliseconds: milliseconds + more.milliseconds,
    };
  }
  return sum;
}
