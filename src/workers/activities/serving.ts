// What the activities of one model work with.

import type { Maker } from "../../jobs/results.ts";
import type { RootCheck } from "../../jobs/roots.ts";
import type { PromptStore } from "../../messages/prompt-store.ts";
import { type Family, serves } from "../../models/families.ts";
import type { ContrastStages, ImageStages, LabelStages, RetrievalStages, Stages } from "../../stages.ts";
import type { WorkerMetrics } from "../metrics.ts";
import type { InFlight } from "./in-flight.ts";

export interface Serving<S extends ImageStages = Stages> {
  readonly stages: S;
  readonly prompts: PromptStore;
  /** Which images may be read. */
  readonly roots: RootCheck;
  /** Named in the results' stats. */
  readonly maker: Maker;
  readonly metrics: WorkerMetrics;
  /** Items of one activity under way together: what the GPU works on, and as much again being read and decoded. */
  readonly itemsInFlight: number;
  /** Aborted when the process begins to stop: activities finish what is under way, commit, and give the rest up. */
  readonly draining: AbortSignal;
  /** Keys that are being published by this process. */
  readonly publishing: InFlight;
}

/** Of a model that compares images with texts; whether it has a matching head as well, or classifies, its card says. */
export type ComparingServing = Serving<ContrastStages | LabelStages | RetrievalStages>;

export type AnyServing = Serving | ComparingServing;

export function writesTexts(serving: AnyServing): serving is Serving {
  return serves(serving.stages.card.family as Family, "texts");
}

/** Whether encode leaves features for others even when it goes on to prompts: where there is a prompt for each instruction. */
export function sharesFeatures(serving: AnyServing): boolean {
  return writesTexts(serving) && serving.stages.card.instruction !== undefined;
}
