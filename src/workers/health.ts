// A worker's HTTP server: /metrics for Prometheus, /healthz (the process answers), /readyz (it takes work).

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { WorkerMetrics } from "./metrics.ts";

export interface HealthOptions {
  readonly metrics: WorkerMetrics;
  /** 0: a free one. */
  readonly port: number;
  /** A free one as well where `port` is taken. Default: that is an error. */
  readonly orFree?: boolean;
  /** Default: all interfaces, as a scraper on another machine needs it. */
  readonly host?: string;
  /** Why the worker takes no work; empty when it does. */
  readonly problems: () => readonly string[];
  /** Temporal's own metrics, in the same format; joined to ours. */
  readonly sdkMetrics?: () => Promise<string>;
}

export interface Health {
  readonly port: number;
  close(): Promise<void>;
}

/** The port that a worker was told to serve on is taken. */
export class MetricsPortError extends Error {
  override readonly name = "MetricsPortError";
}

/** @throws MetricsPortError when the port is taken; other listen errors as they are, e.g. EACCES */
export async function serveHealth(options: HealthOptions): Promise<Health> {
  const server = createServer((request, response) => {
    const answer = (status: number, type: string, body: string) => {
      response.writeHead(status, { "content-type": type }).end(body);
    };
    const pathname = pathOf(request.url ?? "/");
    if (pathname === "/healthz") return answer(200, "text/plain", "ok\n");
    if (pathname === "/readyz") {
      const problems = options.problems();
      if (problems.length === 0) return answer(200, "text/plain", "ready\n");
      return answer(503, "text/plain", `${problems.join("\n")}\n`);
    }
    if (pathname !== "/metrics") return answer(404, "text/plain", "expected /metrics, /healthz or /readyz\n");
    allMetrics(options).then(
      (text) => answer(200, options.metrics.registry.contentType, text),
      (error: unknown) => answer(500, "text/plain", `${String(error)}\n`),
    );
  });
  const { port, host, orFree = false } = options;
  await listen(server, port, host).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EADDRINUSE") throw error;
    if (orFree) return listen(server, 0, host);
    throw new MetricsPortError(
      `metrics: expected port ${port} to be free, got one that another process listens on; ` +
        "choose another, or a free one with --metrics-port 0",
      { cause: error },
    );
  });
  return { port: (server.address() as AddressInfo).port, close: () => close(server) };
}

function listen(server: Server, port: number, host: string | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

/** The path that a request asks for; what is no URL, such as "//", is taken as it is and found nowhere. */
function pathOf(requested: string): string {
  const base = "http://worker";
  return URL.canParse(requested, base) ? new URL(requested, base).pathname : requested;
}

async function allMetrics({ metrics, sdkMetrics }: HealthOptions): Promise<string> {
  const own = await metrics.registry.metrics();
  if (sdkMetrics === undefined) return own;
  // Ours must not fail with theirs: a scrape without Temporal's numbers is better than none.
  const theirs = await sdkMetrics().catch((error: unknown) => `# Temporal SDK metrics: ${String(error)}\n`);
  return `${own}\n${theirs}`;
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
