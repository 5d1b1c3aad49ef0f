// Workers of real servers with stages that need no GPU: every topology, fault and message of a job, seen from outside.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { attemptsOf, exportLines } from "../../src/jobs/results.ts";
import type { ItemResult } from "../../src/messages/job.ts";
import type { JobStatus } from "../../src/workers/job-client.ts";
import { fakeStages } from "./fake-stages.ts";
import { requestOf, type Stack, startStack, writeImages } from "./stack.ts";

let stack: Stack;

before(async () => {
  stack = await startStack();
});

after(async () => {
  await stack.stop();
});

const images = (count: number, distinct = count) => Array.from({ length: count }, (_, i) => `image ${i % distinct}`);

async function finished(jobId: string): Promise<JobStatus> {
  let last: JobStatus | undefined;
  for await (const status of stack.jobs.watch(jobId, { intervalMs: 50 })) last = status;
  assert.ok(last);
  return last;
}

async function resultsOf({ progress }: JobStatus): Promise<ItemResult[]> {
  const lines: ItemResult[] = [];
  for await (const line of exportLines(await attemptsOf(progress.records))) lines.push(JSON.parse(line));
  return lines;
}

test("a fused job: every item once, repeated images encoded once", async () => {
  const model = fakeStages();
  const worker = await stack.worker({ model });
  const source = writeImages(stack, "fused", images(23, 9));
  await stack.jobs.submit(requestOf(stack, "fused", source));
  const status = await finished("fused");
  assert.equal(status.execution, "COMPLETED");
  assert.equal(status.progress.state, "done");
  assert.deepEqual([status.progress.done, status.progress.failed], [23, 0]);
  const results = await resultsOf(status);
  assert.deepEqual(
    results.map(({ id }) => id),
    Array.from({ length: 23 }, (_, i) => `${String(i).padStart(4, "0")}.jpg`),
  );
  assert.equal(model.rows.filter(({ stage }) => stage === "encodeAndQuery").length, 9);
  const metrics = await (await fetch(`http://127.0.0.1:${worker.metricsPort}/metrics`)).text();
  assert.match(metrics, /blipfleet_items_total\{stage="encode",outcome="made"\} 9\n/);
  assert.match(metrics, /temporal_worker_task_slots_available/);
  const ready = await fetch(`http://127.0.0.1:${worker.metricsPort}/readyz`);
  assert.equal(ready.status, 200, await ready.text());
  await worker.stop();
});
