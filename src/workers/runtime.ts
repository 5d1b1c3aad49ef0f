// Temporal's native core, configured once per process: its log joins ours, its metrics are served by /metrics.

import { IllegalStateError } from "@temporalio/common";
import { DefaultLogger, Runtime } from "@temporalio/worker";
import { freePort } from "./servers/temporal.ts";
import type { Logger } from "./worker-log.ts";

const levels = { TRACE: "trace", DEBUG: "debug", INFO: "info", WARN: "warn", ERROR: "error" } as const;

/** What our own log says better: every stage's queue has no workflows, and failed activities are logged with their job. */
const repeated = ["No workflows registered", "Activity failed"];

/** Milliseconds for one scrape of the core on this machine. */
const scrapeTimeout = 2000;

/**
 * Install the runtime. Signals are left to the worker, which drains before it shuts down.
 * @returns reads the core's metrics; undefined when the process has a runtime already (it keeps its settings)
 */
export async function installRuntime(log: Logger): Promise<(() => Promise<string>) | undefined> {
  const port = await freePort();
  try {
    Runtime.install({
      shutdownSignals: [],
      logger: new DefaultLogger("WARN", ({ level, message, meta }) => {
        if (repeated.some((start) => message.startsWith(start))) return;
        log[levels[level]]({ ...meta, sdk: "temporal" }, message);
      }),
      telemetryOptions: {
        logging: { forward: { level: "WARN" } },
        metrics: { prometheus: { bindAddress: `127.0.0.1:${port}` } },
      },
    });
  } catch (error) {
    if (error instanceof IllegalStateError) return undefined;
    throw error;
  }
  return async () => {
    const response = await fetch(`http://127.0.0.1:${port}/metrics`, { signal: AbortSignal.timeout(scrapeTimeout) });
    if (!response.ok) throw new Error(`expected 200, got ${response.status}`);
    return response.text();
  };
}
