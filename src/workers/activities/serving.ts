// What the activities of one model work with.

import type { Maker } from "../../jobs/results.ts";
import type { RootCheck } from "../../jobs/roots.ts";
import type { PromptStore } from "../../messages/prompt-store.ts";
import type { Stages } from "../../stages.ts";
import type { WorkerMetrics } from "../metrics.ts";
import type { InFlight } from "./in-flight.ts";

export interface Serving {
  readonly stages: Stages;
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
