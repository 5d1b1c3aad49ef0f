// The variants of attention without a cache, and the classes of shapes that choose among them.

import { z } from "zod";
import type { Needs, Operation } from "../gpu/variants.ts";
import { tiledAttentionBytes, tiledInvocations } from "./attention-tiled.ts";
import { type CountClass, classOfCount } from "./count-classes.ts";
import { unequalSubgroups } from "./subgroups.ts";

/** Constant of shaders/attention-lanes.wgsl: queries of each invocation. Their number changes no bits. */
const lanes = z.strictObject({ shader: z.literal("attention-lanes"), QUERIES: z.number().int().min(1) });

/** Constant of shaders/attention-tiled.wgsl: queries of each invocation, of eight rows of them. */
const tiled = z.strictObject({ shader: z.literal("attention-tiled"), ROWS: z.number().int().min(1) });

const attentionForm = z.discriminatedUnion("shader", [lanes, tiled]);
export type AttentionForm = z.infer<typeof attentionForm>;

/** The most query tokens of each class, and its name. */
const queryClasses: readonly CountClass[] = [
  { most: 8, name: "up to 8 queries" },
  { most: 64, name: "9 to 64 queries" },
  { most: Number.POSITIVE_INFINITY, name: "more queries" },
];

export const attentionOperation: Operation<AttentionForm> = {
  name: "attention",
  classes: queryClasses.map(({ name }) => name),
  variant: attentionForm,
  needs: attentionNeeds,
};

/** What a form asks of an adapter. */
function attentionNeeds(form: AttentionForm): Needs {
  if (form.shader === "attention-lanes") return { features: ["subgroups"], unfit: unequalSubgroups };
  return {
    limits: {
      maxComputeInvocationsPerWorkgroup: tiledInvocations,
      maxComputeWorkgroupSizeX: tiledInvocations,
      maxComputeWorkgroupStorageSize: tiledAttentionBytes(form),
    },
  };
}

/** @param queryTokens of one item */
export function attentionClass(queryTokens: number): string {
  return classOfCount(queryClasses, queryTokens);
}
