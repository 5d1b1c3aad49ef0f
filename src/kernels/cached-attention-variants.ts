// The variants of attention over a cache.

import { z } from "zod";
import type { AdapterReport } from "../gpu/adapter.ts";
import type { Needs, Operation } from "../gpu/variants.ts";
import { unequalSubgroups } from "./subgroups.ts";

const size = z.number().int().min(1);

/** Constant of shaders/cached-attention-lanes.wgsl: positions of a block. */
const lanes = z.strictObject({ shader: z.literal("cached-attention-lanes"), TILE: size });

/** Constants of shaders/cached-attention.wgsl: invocations of a workgroup, and positions of a span. */
const spans = z.strictObject({ shader: z.literal("cached-attention"), LANES: size, SPAN: size });

const cachedAttentionForm = z.discriminatedUnion("shader", [lanes, spans]);
export type CachedAttentionForm = z.infer<typeof cachedAttentionForm>;
export type CachedLanes = z.infer<typeof lanes>;
export type CachedSpans = z.infer<typeof spans>;

/** The one class: prefill and decoding share batches, and a row's bits may not depend on how many others there are. */
export const cachedClass = "any rows";

export const cachedAttentionOperation: Operation<CachedAttentionForm> = {
  name: "cached-attention",
  classes: [cachedClass],
  variant: cachedAttentionForm,
  needs: cachedNeeds,
};

/** What a form asks of an adapter. Workgroup memory is no matter: a head and a tile of scores, of what every adapter has. */
function cachedNeeds(form: CachedAttentionForm): Needs {
  if (form.shader === "cached-attention-lanes") {
    return { features: ["subgroups"], unfit: (report) => unfitBlock(form, report) };
  }
  return { limits: { maxComputeInvocationsPerWorkgroup: form.LANES, maxComputeWorkgroupSizeX: form.LANES } };
}

function unfitBlock({ TILE }: CachedLanes, report: AdapterReport): string | null {
  const { subgroupMinSize } = report;
  if (TILE % subgroupMinSize === 0) return unequalSubgroups(report);
  return `needs subgroups that divide a block of ${TILE} positions, got ${subgroupMinSize}`;
}
