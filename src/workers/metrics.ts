// What a worker counts, in Prometheus' format. Stage words are labels, so that one query compares the stages.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Stage } from "../messages/job.ts";
import type { MissReason } from "../messages/prompt-store.ts";

/** Seconds; from one answer on a GPU to a large chunk on a slow adapter. */
const buckets = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800];

export class WorkerMetrics {
  readonly registry = new Registry();

  readonly #items = new Counter({
    name: "blipfleet_items_total",
    help: "Items by stage; made: worked on by the GPU, reused: found in the prompt store or committed before",
    labelNames: ["stage", "outcome"],
    registers: [this.registry],
  });
  readonly #failures = new Counter({
    name: "blipfleet_item_failures_total",
    help: "Items that failed, by stage and class of the error",
    labelNames: ["stage", "type"],
    registers: [this.registry],
  });
  readonly #misses = new Counter({
    name: "blipfleet_prompt_misses_total",
    help: "Reads of the prompt store without a usable activation; absent, corrupt or foreign",
    labelNames: ["stage", "reason"],
    registers: [this.registry],
  });
  readonly #reencodes = new Counter({
    name: "blipfleet_reencodes_total",
    help: "Items that encode was asked for again because their prompt was missing",
    registers: [this.registry],
  });
  readonly #inFlight = new Gauge({
    name: "blipfleet_items_in_flight",
    help: "Items being read, decoded or worked on",
    labelNames: ["stage"],
    registers: [this.registry],
  });
  readonly #activities = new Histogram({
    name: "blipfleet_activity_seconds",
    help: "Activities by name and outcome (done, or the class of the error)",
    labelNames: ["activity", "outcome"],
    buckets,
    registers: [this.registry],
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry });
  }

  item(stage: Stage, outcome: "made" | "reused"): void {
    this.#items.inc({ stage, outcome });
  }

  itemFailed(stage: Stage, type: string): void {
    this.#failures.inc({ stage, type });
  }

  miss(stage: Stage, reason: MissReason): void {
    this.#misses.inc({ stage, reason });
  }

  reencode(items: number): void {
    this.#reencodes.inc(items);
  }

  /** Count an item as in flight while `work` runs. */
  async row<T>(stage: Stage, work: () => Promise<T>): Promise<T> {
    this.#inFlight.inc({ stage });
    try {
      return await work();
    } finally {
      this.#inFlight.dec({ stage });
    }
  }

  activity(activity: string, outcome: string, seconds: number): void {
    this.#activities.observe({ activity, outcome }, seconds);
  }

  /** A gauge that is read when somebody asks. */
  gauge(name: string, help: string, read: () => number | Promise<number>): void {
    new Gauge({
      name,
      help,
      registers: [this.registry],
      async collect() {
        this.set(await read());
      },
    });
  }
}
