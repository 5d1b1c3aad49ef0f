// What a worker serves over HTTP, and how its log reads for people.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import { MetricsPortError, serveHealth } from "../../src/workers/health.ts";
import { WorkerMetrics } from "../../src/workers/metrics.ts";
import { readable } from "../../src/workers/worker-log.ts";

test("/metrics joins ours and Temporal's, and survives theirs; /healthz, /readyz and what else there is", async () => {
  const metrics = new WorkerMetrics();
  metrics.item("encode", "made");
  metrics.itemFailed("generate", "ImageError");
  metrics.miss("query", "corrupt");
  let problems: string[] = [];
  let sdk: () => Promise<string> = async () => "temporal_num_pollers 3\n";
  const health = await serveHealth({
    metrics,
    port: 0,
    host: "127.0.0.1",
    problems: () => problems,
    sdkMetrics: () => sdk(),
  });
  const get = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${health.port}${path}`);
    return { status: response.status, text: await response.text() };
  };
  try {
    const first = await get("/metrics");
    assert.equal(first.status, 200);
    for (const line of [
      'blipfleet_items_total{stage="encode",outcome="made"} 1',
      'blipfleet_item_failures_total{stage="generate",type="ImageError"} 1',
      'blipfleet_prompt_misses_total{stage="query",reason="corrupt"} 1',
      "temporal_num_pollers 3",
    ]) {
      assert.ok(first.text.split("\n").includes(line), `${line} in\n${first.text}`);
    }
    sdk = async () => {
      throw new Error("gone");
    };
    const second = await get("/metrics");
    assert.equal(second.status, 200);
    assert.match(second.text, /# Temporal SDK metrics: Error: gone/);
    assert.deepEqual(await get("/healthz"), { status: 200, text: "ok\n" });
    assert.deepEqual(await get("/readyz"), { status: 200, text: "ready\n" });
    problems = ["NATS is not connected"];
    assert.deepEqual(await get("/readyz"), { status: 503, text: "NATS is not connected\n" });
    assert.equal((await get("/")).status, 404);
  } finally {
    await health.close();
  }
});

test("what is no path of ours is refused, and the next request is served", async () => {
  const health = await serveHealth({ metrics: new WorkerMetrics(), port: 0, host: "127.0.0.1", problems: () => [] });
  /** As it is, which fetch() would tidy up. */
  const statusOf = (path: string) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect(health.port, "127.0.0.1", () => socket.write(`GET ${path} HTTP/1.1\r\nHost: w\r\n\r\n`));
      socket.once("data", (data) => {
        resolve(data.toString("latin1").split(" ")[1] ?? "");
        socket.destroy();
      });
      socket.once("error", reject);
      socket.once("close", () => reject(new Error(`${path}: expected an answer, got none`)));
    });
  try {
    const huge = `/${"x".repeat(100_000)}`;
    for (const [path, status] of [
      ["//", "404"],
      ["//[", "404"],
      ["/%", "404"],
      ["/?//", "404"],
      ["http://[", "404"],
      [huge, "431"], // by node's parser
      ["/healthz?x=//", "200"],
    ] as const) {
      assert.equal(await statusOf(path), status, path.slice(0, 20));
      assert.equal(await statusOf("/healthz"), "200", `after ${path.slice(0, 20)}`);
    }
  } finally {
    await health.close();
  }
});

test("a port that is taken: a free one where any will do, else one sentence with the port and the next step", async () => {
  const options = { metrics: new WorkerMetrics(), host: "127.0.0.1", problems: () => [] };
  const first = await serveHealth({ ...options, port: 0 });
  try {
    await assert.rejects(serveHealth({ ...options, port: first.port }), (error: Error) => {
      assert.ok(error instanceof MetricsPortError);
      assert.match(error.message, new RegExp(`port ${first.port} .*--metrics-port 0$`));
      return true;
    });
    const second = await serveHealth({ ...options, port: first.port, orFree: true });
    assert.notEqual(second.port, first.port);
    assert.equal((await fetch(`http://127.0.0.1:${second.port}/healthz`)).status, 200);
    await second.close();
  } finally {
    await first.close();
  }
  const third = await serveHealth({ ...options, port: first.port, orFree: true });
  assert.equal(third.port, first.port);
  await third.close();
});

test("a gauge is read at every scrape", async () => {
  const metrics = new WorkerMetrics();
  let rows = 1;
  metrics.gauge("blipfleet_gpu_rows", "rows", () => rows);
  assert.match(await metrics.registry.metrics(), /^blipfleet_gpu_rows 1$/m);
  rows = 7;
  assert.match(await metrics.registry.metrics(), /^blipfleet_gpu_rows 7$/m);
});

test("a log line for people: the time, the message, the fields; the level where it matters", () => {
  const time = new Date(2026, 0, 2, 3, 4, 5).getTime();
  const line = {
    level: "info",
    time,
    pid: 1,
    hostname: "h",
    name: "blipfleet",
    job: "cats",
    chunk: 3,
    msg: "encode done",
  };
  assert.equal(readable(JSON.stringify(line)), "03:04:05 encode done job=cats chunk=3");
  assert.equal(readable(JSON.stringify({ ...line, level: "warn" })), "03:04:05 warn: encode done job=cats chunk=3");
  assert.equal(readable("no json"), "no json");
});
