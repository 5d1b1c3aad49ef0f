// The activities encode and query of a chunk: every item's activation into the prompt store, and a line about each.

import { Context } from "@temporalio/activity";
import { openStore } from "../../jobs/store.ts";
import type { EncodeInput, EncodeOutcome, PromptLine, QueryInput } from "../../messages/job.ts";
import type { ImageStages } from "../../stages.ts";
import { eachItem } from "./each-item.ts";
import { withHeartbeats } from "./heartbeats.ts";
import { encodeImage, queryFeatures } from "./make-prompts.ts";
import { instructionOf } from "./make-text.ts";
import { itemError } from "./mistakes.ts";
import { commitPromptLines, itemsOfRound, readPromptLines } from "./prompt-lines.ts";
import type { Serving } from "./serving.ts";

/**
 * ViT, and Q-Former when fused. What the store has is left as it is, so a second try goes on where the first one died.
 * A bad image is a line with its error.
 */
export async function encode(serving: Serving, input: EncodeInput): Promise<EncodeOutcome> {
  const items = await itemsOfRound(input, input.missing);
  const run = new StageRun(serving, "encode", items.length);
  if (input.missing !== null) serving.metrics.reencode(items.length);
  const lines: PromptLine[] = [];
  const { topology } = input.asked;
  await run.each(items, async ({ position, item, overwrite }, signal) => {
    try {
      const instruction = instructionOf(serving, input.asked, item.prompt);
      const request = { uri: item.uri, topology, overwrite, instruction };
      const { made, ...keys } = await encodeImage(serving, request, { signal });
      lines.push({ position, ...keys });
      run.count(made ? "made" : "reused");
    } catch (error) {
      lines.push({ position, error: run.itemFailed(error, signal) });
    }
  });
  return { ...run.work(), committed: await commitPromptLines(input, "encode", input.round, lines) };
}

/** Q-Former, on features that encode left in the store. Missing features become lines that say so. */
export async function query(serving: Serving, input: QueryInput): Promise<EncodeOutcome> {
  const encoded = await readPromptLines(openStore(input.folder), [input.encoded]);
  const items = (await itemsOfRound(input, input.missing)).filter(({ position }) => encoded.has(position));
  const run = new StageRun(serving, "query", items.length);
  const lines: PromptLine[] = [];
  await run.each(items, async ({ position, item, overwrite }, signal) => {
    const line = encoded.get(position);
    if (line === undefined) return;
    if ("error" in line || line.features === undefined) {
      lines.push(line);
      return;
    }
    const keys = { prompt: line.prompt, features: line.features };
    try {
      const instruction = instructionOf(serving, input.asked, item.prompt);
      const outcome = await queryFeatures(serving, keys, { instruction, overwrite }, { signal });
      lines.push("missing" in outcome ? { ...line, missing: outcome.missing } : line);
      run.count("made" in outcome && outcome.made ? "made" : "reused");
    } catch (error) {
      lines.push({ position, error: run.itemFailed(error, signal) });
    }
  });
  return { ...run.work(), committed: await commitPromptLines(input, "query", input.round, lines) };
}

/** Counters, heartbeats and bounded concurrency of one activity of one stage. */
export class StageRun {
  readonly #serving: Serving<ImageStages>;
  readonly #stage: "encode" | "query" | "generate";
  readonly #started = performance.now();
  readonly #counters: { readonly items: number; made: number; reused: number; failed: number };

  constructor(serving: Serving<ImageStages>, stage: "encode" | "query" | "generate", items: number) {
    this.#serving = serving;
    this.#stage = stage;
    this.#counters = { items, made: 0, reused: 0, failed: 0 };
  }

  each<Item>(items: readonly Item[], work: (item: Item, signal: AbortSignal) => Promise<void>): Promise<void> {
    const { itemsInFlight: limit, draining, metrics } = this.#serving;
    const signal = Context.current().cancellationSignal;
    return withHeartbeats(
      () => ({ ...this.#counters }),
      () =>
        eachItem(items, { limit, signal, draining }, (item, own) => metrics.row(this.#stage, () => work(item, own))),
    );
  }

  count(what: "made" | "reused"): void {
    this.#counters[what] += 1;
    this.#serving.metrics.item(this.#stage, what);
  }

  /** The line for an item whose work threw. Rethrows cancellation and what is no fault of the item. */
  itemFailed(error: unknown, signal: AbortSignal): { readonly type: string; readonly message: string } {
    signal.throwIfAborted();
    const failure = itemError(error, Context.current().info.attempt);
    this.#counters.failed += 1;
    this.#serving.metrics.itemFailed(this.#stage, failure.type);
    return failure;
  }

  work(): { readonly made: number; readonly reused: number; readonly milliseconds: number } {
    const { made, reused } = this.#counters;
    return { made, reused, milliseconds: Math.round(performance.now() - this.#started) };
  }
}
