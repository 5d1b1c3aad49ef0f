// The items of an activity, a bounded number at a time, so that reading and decoding go on while the GPU works.

import { setMaxListeners } from "node:events";
import { ApplicationFailure } from "@temporalio/common";

export interface EachItemOptions {
  readonly limit: number;
  /** Aborts the activity; the work gets a signal that also fires when another item's work throws. */
  readonly signal: AbortSignal;
  /** Aborted: start no more items, let those under way end. */
  readonly draining: AbortSignal;
}

/** Retried at once, by another worker: this one is going. */
const drainRetryDelay = "200ms";

/**
 * Call `work` for every item, at most `limit` at a time, in order of their start.
 * @throws the first error of any work, after all work under way has ended
 * @throws ApplicationFailure WorkerDraining when the process is stopping and items are left
 */
export async function eachItem<Item>(
  items: readonly Item[],
  options: EachItemOptions,
  work: (item: Item, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  setMaxListeners(0, signal); // every row under way listens
  let next = 0;
  let error: unknown;
  const lane = async () => {
    while (next < items.length && !signal.aborted && !options.draining.aborted) {
      const item = items[next] as Item;
      next += 1;
      try {
        await work(item, signal);
      } catch (cause) {
        if (!failed.signal.aborted) {
          error = cause;
          failed.abort(cause);
        }
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.limit, items.length) }, lane));
  options.signal.throwIfAborted();
  if (failed.signal.aborted) throw error;
  if (next < items.length) {
    throw ApplicationFailure.create({
      type: "WorkerDraining",
      message: `worker: expected to finish ${items.length} items, got a stop after ${next}; another worker goes on`,
      nextRetryDelay: drainRetryDelay,
    });
  }
}
