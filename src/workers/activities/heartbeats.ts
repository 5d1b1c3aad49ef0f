// A heartbeat while an activity lives: Temporal hears of a dead or frozen worker, and the activity of a cancellation.

import { Context } from "@temporalio/activity";

/** Milliseconds; the SDK sends fewer, by the activity's timeout. */
const interval = 500;

/**
 * Run `work` and heartbeat its counters until it ends. The main thread never blocks, so a missing heartbeat means that
 * the process is gone or frozen.
 */
export async function withHeartbeats<T>(counters: () => unknown, work: () => Promise<T>): Promise<T> {
  const context = Context.current();
  const timer = setInterval(() => context.heartbeat(counters()), interval);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}
