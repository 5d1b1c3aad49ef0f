// Histories recorded on a real server (record-histories.ts) are replayed: a change of a workflow that would break jobs
// under way shows here.

import assert from "node:assert/strict";
import { test } from "node:test";
import { DefaultLogger, Runtime, Worker } from "@temporalio/worker";
import { DeterminismViolationError } from "@temporalio/workflow";
import { findBundle } from "../../src/workers/bundle-workflows.ts";
import { historyNames, type Recorded, readHistory, toProto } from "./histories.ts";

Runtime.install({ logger: new DefaultLogger("ERROR"), telemetryOptions: { logging: { filter: "OFF", forward: {} } } });

const replay = (recorded: Recorded) =>
  Worker.runReplayHistory({ workflowBundle: { codePath: findBundle() } }, toProto(recorded), recorded.workflowId);

test("histories of every workflow are there", () => {
  const types = new Set(historyNames().map((name) => name.split("-")[0]));
  assert.deepEqual([...types].sort(), ["answer", "chunk", "job"]);
});

for (const name of historyNames()) {
  test(`${name} replays`, () => replay(readHistory(name)));
}

test("a history that the code does not lead to is found out", async () => {
  const recorded = readHistory("chunk-fused-missing.json");
  const scheduled = recorded.history.events.find((event) => event.activityTaskScheduledEventAttributes);
  assert.ok(scheduled?.activityTaskScheduledEventAttributes);
  scheduled.activityTaskScheduledEventAttributes.activityType.name = "query";
  await assert.rejects(replay(recorded), DeterminismViolationError);
});
