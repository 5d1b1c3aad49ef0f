import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { table } from "../../src/cli/bench.ts";
import { statusFields, statusLine } from "../../src/cli/job-lines.ts";
import { newJobId } from "../../src/cli/job-submit.ts";
import { fromHere, oneLine } from "../../src/cli/output.ts";
import type { JobProgress } from "../../src/messages/job.ts";
import { defaultGeneration } from "../../src/stages.ts";

test("a text for people has no line breaks and steers no terminal", () => {
  assert.equal(oneLine("a dog\n on \u001b[31mgrass\b\u0007 "), "a dog  on  [31mgrass");
});

test("a path below the working folder is told from there, others as they are", () => {
  const here = process.cwd();
  assert.equal(fromHere(join(here, "examples", "images")), join("examples", "images"));
  assert.equal(fromHere(join(here, "..images")), "..images");
  for (const path of [here, dirname(here), `${here}-other`, "org/name", "../x"]) assert.equal(fromHere(path), path);
});

test("a table lines up, numbers to the right", () => {
  const rows = [
    { name: "put", ours: 1234.5678, peer: 2000, unit: "prompts/s", ratio: 0.6173 },
    { name: "a longer name", ours: 0.5, peer: null, unit: "µs", ratio: null },
  ];
  assert.deepEqual(table(rows), [
    "name             ours  peer  unit        ratio",
    "put              1235  2000  prompts/s  0.6173",
    "a longer name  0.5000        µs",
  ]);
});

const progress: JobProgress = {
  request: {
    jobId: "holidays",
    task: "caption",
    model: { ref: "m", digest: "0".repeat(64), dtype: "f32" },
    topology: "fused",
    prompt: null,
    generation: defaultGeneration,
    source: "file:///photos",
    folder: "file:///jobs/holidays",
    chunkSize: 16,
    window: 8,
  },
  attempt: 0,
  state: "running",
  total: 200,
  done: 39,
  failed: 1,
  inFlight: 32,
  chunks: { total: 13, finished: 2, inFlight: 2 },
  reencoded: 0,
  startedAt: 0,
  updatedAt: 0,
  imagesPerSecond: 3.2,
  stages: {},
  waiting: [],
  problem: null,
  records: [],
};

test("a job's standing as one line", () => {
  assert.equal(statusLine(progress), "holidays: running, 40 of 200 images, 1 failed, 3.2 images/s, 50 s left");
  assert.equal(statusLine({ ...progress, state: "planning", done: 0, failed: 0 }), "holidays: planning");
  const problem = { type: "PathError", message: "outside" };
  assert.equal(
    statusLine({ ...progress, attempt: 2, state: "failed", problem }),
    "holidays (attempt 2 over 200 items): failed, 40 of 200 images, 1 failed, PathError: outside",
  );
});

test("a job's standing as an object is snake_case and says why it failed", () => {
  const fields = statusFields({ ...progress, problem: { type: "PathError", message: "outside" } });
  for (const name of Object.keys(fields)) assert.match(name, /^[a-z]+(_[a-z]+)*$/);
  assert.deepEqual(
    [fields.job_id, fields.total, fields.done, fields.failed, fields.in_flight],
    ["holidays", 200, 39, 1, 32],
  );
  assert.deepEqual(fields.error, { type: "PathError", message: "outside" });
});

test("job ids sort by time and differ within a second", () => {
  const id = newJobId(new Date("2026-03-14T10:15:00.500Z"));
  assert.match(id, /^20260314-101500-[0-9a-f]{4}$/);
  const ids = new Set(Array.from({ length: 50 }, () => newJobId(new Date(0))));
  assert.equal(ids.size > 45, true);
});
