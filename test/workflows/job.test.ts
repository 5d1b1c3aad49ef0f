// The workflows on a real server, with fake activities: windows, signals, losses, rounds, attempts.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WorkflowFailedError } from "@temporalio/client";
import { ApplicationFailure } from "@temporalio/common";
import type { JobProgress } from "../../src/messages/job.ts";
import { chunkWorkflowId, jobWorkflowId } from "../../src/messages/queues.ts";
import { committed, eventually, gate, matcher, model, type Rig, startRig } from "./rig.ts";

/** Low, so that a job of a hundred chunks passes it several times. */
const suggestAt = 150;

let rig: Rig;

before(async () => {
  rig = await startRig(suggestAt);
});

after(async () => {
  await rig.stop();
});

const chunkId = (jobId: string, chunk: number, attempt = 0) => chunkWorkflowId(jobWorkflowId(jobId), attempt, chunk);

/** Events of one run's history. */
async function eventsOf(workflowId: string, runId?: string): Promise<number> {
  const { events } = await rig.environment.client.workflow.getHandle(workflowId, runId).fetchHistory();
  return events?.length ?? 0;
}

test("the window slides over continue-as-new: every chunk once, few at a time, histories and state bounded", async () => {
  const chunks = 105;
  const window = 8;
  let underWay = 0;
  let most = 0;
  const ran: number[] = [];
  const job = await rig.job(
    "slides",
    chunks,
    { window },
    {
      async encode() {
        underWay += 1;
        most = Math.max(most, underWay);
      },
      async generate({ chunk }) {
        underWay -= 1;
        ran.push(chunk);
        return {};
      },
    },
  );
  const first = (await job.handle.describe()).runId;
  const result = await job.result();
  assert.deepEqual([result.state, result.done, result.failed, result.total], ["done", chunks, 0, chunks]);
  assert.deepEqual(result.chunks, { total: chunks, finished: chunks, inFlight: 0 });
  assert.deepEqual(
    [...ran].sort((a, b) => a - b),
    Array.from({ length: chunks }, (_, i) => i),
  );
  assert.ok(most <= window, `${most} chunks under way at once, window ${window}`);
  assert.ok(most >= window / 2, `the window never filled: ${most}`);

  const { runId } = await job.handle.describe();
  assert.notEqual(runId, first, "the job never continued as new");
  // One page when 100 chunks were in, one at the end, each naming the one before.
  assert.deepEqual(
    job.calls.pages.map(({ page, chunks }) => [page, chunks.length]),
    [
      [0, 100],
      [1, 5],
    ],
  );
  assert.deepEqual(
    job.calls.pages.flatMap(({ chunks }) => chunks.map(({ chunk }) => chunk)),
    Array.from({ length: chunks }, (_, i) => i),
  );
  assert.equal(job.calls.pages[0]?.previous, null);
  assert.equal(job.calls.pages[1]?.previous?.name, "pages/0.json");
  assert.deepEqual(
    result.records.map(({ head }) => head?.name),
    ["pages/1.json"],
  );

  const runs = [];
  for await (const { runId } of rig.environment.client.workflow.list({
    query: `WorkflowId = "${jobWorkflowId("slides")}"`,
  })) {
    runs.push(await eventsOf(jobWorkflowId("slides"), runId));
  }
  assert.ok(runs.length >= 4, `${runs.length} runs`);
  // The suggestion comes at 150 events; one loop after it the run ends.
  assert.ok(Math.max(...runs) < suggestAt + 120, `a run of ${Math.max(...runs)} events`);
  const events = await eventsOf(chunkId("slides", 0));
  assert.ok(events <= 60, `a chunk's history has ${events} events`);
});

test("search attributes show done and failed", async () => {
  const job = await rig.job(
    "shown",
    3,
    {},
    { generate: async ({ chunk }) => (chunk === 1 ? { result: failedResult } : {}) },
  );
  const result = await job.result();
  assert.deepEqual([result.done, result.failed], [2, 1]);
  const { searchAttributes } = await job.handle.describe();
  assert.deepEqual([searchAttributes.BlipfleetDone, searchAttributes.BlipfleetFailed], [[2], [1]]);
});

const failedResult = { name: "chunks/1/generate.jsonl", sha256: "f".repeat(64), done: 0, failed: 1 };

test("paused: no chunk starts; resumed: the rest follow", async () => {
  const hold = gate();
  const job = await rig.job("pauses", 6, { window: 2 }, { encode: () => hold.passed });
  await eventually("two chunks", () => job.calls.encodes.length === 2);
  await job.handle.signal("pause");
  hold.open();
  await eventually("both to end", async () => (await job.progress()).chunks.finished === 2);
  const paused = await job.progress();
  assert.deepEqual([paused.state, paused.chunks.inFlight, job.calls.encodes.length], ["paused", 0, 2]);
  await job.handle.signal("resume");
  const result = await job.result();
  assert.deepEqual([result.state, result.done], ["done", 6]);
});

for (const how of ["signal", "cancellation of the workflow"] as const) {
  test(`cancel by ${how}: chunks in flight are cancelled, what is done stays`, async () => {
    const hold = gate();
    const jobId = `cancels-${how.slice(0, 6)}`;
    const job = await rig.job(
      jobId,
      10,
      { window: 3 },
      { encode: ({ chunk }) => (chunk === 0 ? Promise.resolve() : hold.passed) },
    );
    await eventually("one chunk to end and three to wait", async () => {
      const { chunks } = await job.progress();
      return chunks.finished === 1 && job.calls.encodes.length === 4;
    });
    if (how === "signal") await job.handle.signal("cancel");
    else await job.handle.cancel();
    const result = await job.result();
    assert.deepEqual([result.state, result.done, result.chunks.inFlight], ["canceled", 1, 0]);
    assert.deepEqual(
      job.calls.pages.flatMap(({ chunks }) => chunks.map(({ chunk }) => chunk)),
      [0],
    );
    for (const chunk of [1, 2, 3]) {
      const { status } = await rig.environment.client.workflow.getHandle(chunkId(jobId, chunk)).describe();
      assert.equal(status.name, "CANCELLED");
    }
    assert.equal(job.calls.encodes.length, 4, "a chunk started after the cancellation");
    hold.open();
  });
}

test("cancelled while it plans: nothing starts", async () => {
  const hold = gate();
  const job = await rig.job("cancels-early", 5, {}, { plan: () => hold.passed });
  await eventually("the plan", () => job.calls.plans.length > 0);
  assert.equal((await job.progress()).state, "planning");
  await job.handle.signal("cancel");
  const result = await job.result();
  assert.deepEqual([result.state, result.total, job.calls.encodes.length], ["canceled", 0, 0]);
  hold.open();
});

async function failureOf(result: Promise<unknown>): Promise<ApplicationFailure> {
  const error = await result.then(
    () => assert.fail("expected a failure, got a result"),
    (cause: unknown) => cause,
  );
  assert.ok(error instanceof WorkflowFailedError);
  assert.ok(error.cause instanceof ApplicationFailure);
  return error.cause;
}

test("a mistake in the source fails the job with its class, and nothing starts", async () => {
  const job = await rig.job(
    "no-source",
    5,
    {},
    {
      plan: async () => {
        throw ApplicationFailure.nonRetryable("line 3: expected JSON, got {", "ManifestError");
      },
    },
  );
  const failure = await failureOf(job.result());
  assert.deepEqual([failure.type, failure.message], ["ManifestError", "line 3: expected JSON, got {"]);
  const last = failure.details?.[0] as JobProgress;
  assert.deepEqual([last.state, last.problem?.type], ["failed", "ManifestError"]);
  assert.equal(job.calls.encodes.length, 0);
});

test("a mistake that all items share fails the job, cancels its other chunks and keeps what is done", async () => {
  const hold = gate();
  const job = await rig.job(
    "shared-mistake",
    9,
    { window: 3 },
    {
      async encode({ chunk }) {
        if (chunk === 1) await hold.passed;
        if (chunk === 3)
          throw ApplicationFailure.nonRetryable("prompt store: expected 8 MB, got 1 MB", "PromptStoreError");
      },
    },
  );
  const failure = await failureOf(job.result());
  assert.equal(failure.type, "PromptStoreError");
  const last = failure.details?.[0] as JobProgress;
  assert.equal(last.state, "failed");
  assert.ok(last.done >= 2 && last.done < 9, `${last.done} done`);
  assert.equal(last.records[0]?.head?.name, "pages/0.json");
  const { status } = await rig.environment.client.workflow.getHandle(chunkId("shared-mistake", 1)).describe();
  assert.equal(status.name, "CANCELLED");
  hold.open();
});

test("infrastructure that fails a few times is tried again", async () => {
  let tries = 0;
  const job = await rig.job(
    "flaky",
    1,
    {},
    {
      encode: async () => {
        tries += 1;
        if (tries < 3) throw new Error("connection reset");
      },
    },
  );
  const result = await job.result();
  assert.deepEqual([result.state, tries], ["done", 3]);
});

for (const topology of ["fused", "split"] as const) {
  test(`${topology}: missing prompts are encoded again, only those, and the reason goes along`, async () => {
    const job = await rig.job(
      `misses-${topology}`,
      8,
      { chunkSize: 8, topology },
      {
        generate: async ({ round }) => (round === 0 ? { result: null, missing: { absent: [1, 5], damaged: [2] } } : {}),
      },
    );
    const result = await job.result();
    assert.deepEqual([result.state, result.done, result.reencoded], ["done", 8, 3]);
    const { encodes, queries, generates } = job.calls;
    assert.deepEqual(
      encodes.map(({ round, missing }) => ({ round, missing })),
      [
        { round: 0, missing: null },
        { round: 1, missing: { absent: [1, 5], damaged: [2] } },
      ],
    );
    assert.deepEqual(
      queries.map(({ round, missing, encoded }) => ({ round, missing, encoded: encoded.name })),
      topology === "fused"
        ? []
        : [
            { round: 0, missing: null, encoded: "chunks/0/encode.0.jsonl" },
            { round: 1, missing: { absent: [1, 5], damaged: [2] }, encoded: "chunks/0/encode.1.jsonl" },
          ],
    );
    const stage = topology === "fused" ? "encode" : "query";
    assert.deepEqual(
      generates.map(({ round, last, prompts }) => ({ round, last, prompts: prompts.map(({ name }) => name) })),
      [
        { round: 0, last: false, prompts: [`chunks/0/${stage}.0.jsonl`] },
        { round: 1, last: false, prompts: [`chunks/0/${stage}.0.jsonl`, `chunks/0/${stage}.1.jsonl`] },
      ],
    );
  });
}

test("after three rounds of encoding again, generate is told that it is the last", async () => {
  const job = await rig.job(
    "never-there",
    4,
    { chunkSize: 4 },
    {
      generate: async ({ last }) => (last ? {} : { result: null, missing: { absent: [0], damaged: [] } }),
    },
  );
  const result = await job.result();
  assert.deepEqual(
    job.calls.generates.map(({ round, last }) => [round, last]),
    [
      [0, false],
      [1, false],
      [2, false],
      [3, true],
    ],
  );
  assert.deepEqual([job.calls.encodes.length, result.reencoded], [4, 3]);
  const events = await eventsOf(chunkId("never-there", 0));
  assert.ok(events <= 80, `a chunk's history with all rounds has ${events} events`);
});

test("a chunk that Temporal lost is asked about and started again", async () => {
  const hold = gate();
  const job = await rig.job(
    "loses",
    3,
    { window: 3 },
    { encode: ({ chunk }) => (chunk === 1 ? hold.passed : Promise.resolve()) },
  );
  await eventually("chunk 1", () => job.calls.encodes.some(({ chunk }) => chunk === 1));
  await rig.environment.client.workflow.getHandle(chunkId("loses", 1)).terminate("by the test");
  hold.open();
  const result = await job.result();
  assert.deepEqual([result.state, result.done], ["done", 3]);
  assert.ok(job.calls.encodes.filter(({ chunk }) => chunk === 1).length >= 2);
});

test("a chunk that somebody cancelled alone is started again at once", async () => {
  const hold = gate();
  const job = await rig.job(
    "cancelled-alone",
    2,
    { timing: { heartbeatSeconds: 2, silentSeconds: 3600 } },
    {
      encode: ({ chunk }) => (chunk === 1 && !opened ? hold.passed : Promise.resolve()),
    },
  );
  let opened = false;
  await eventually("chunk 1", () => job.calls.encodes.some(({ chunk }) => chunk === 1));
  opened = true;
  await rig.environment.client.workflow.getHandle(chunkId("cancelled-alone", 1)).cancel();
  const result = await job.result();
  assert.deepEqual([result.state, result.done], ["done", 2]);
  hold.open();
});

test("a slow chunk is asked about and left alone; the progress says what it waits for", async () => {
  const hold = gate();
  let tries = 0;
  const job = await rig.job(
    "slow",
    1,
    { timing: { heartbeatSeconds: 30, silentSeconds: 1 } },
    {
      encode: async () => {
        tries += 1;
        if (tries === 1) throw new Error("NATS is away");
        await hold.passed;
      },
    },
  );
  await eventually("an answer about the chunk", async () => (await job.progress()).waiting.length > 0);
  assert.match((await job.progress()).waiting[0] ?? "", /^chunk 0: encode, try 2, after: NATS is away/);
  hold.open();
  const result = await job.result();
  assert.deepEqual([result.state, result.done, tries], ["done", 1, 2]);
});

test("reports count once: doubles, strangers and other attempts change nothing", async () => {
  const hold = gate();
  const job = await rig.job(
    "doubles",
    3,
    { window: 1 },
    { encode: ({ chunk }) => (chunk === 1 ? hold.passed : Promise.resolve()) },
  );
  await eventually("chunk 0 to end", async () => (await job.progress()).done === 1);
  const report = (chunk: number, attempt = 0) => ({
    attempt,
    chunk,
    state: "done" as const,
    result: { name: "chunks/9/generate.jsonl", sha256: "9".repeat(64) },
    done: 1,
    failed: 0,
    reencoded: 0,
    stages: {},
  });
  await job.report(report(0));
  await job.report(report(0));
  await job.report(report(2));
  await job.report(report(1, 7));
  const between = await job.progress();
  assert.deepEqual([between.done, between.chunks.finished, between.chunks.inFlight], [1, 1, 1]);
  hold.open();
  const result = await job.result();
  assert.deepEqual([result.done, result.chunks.finished], [3, 3]);
  assert.deepEqual(
    job.calls.pages.flatMap(({ chunks }) => chunks.map(({ result: { name } }) => name)),
    [0, 1, 2].map((chunk) => `chunks/${chunk}/generate.jsonl`),
  );
});

test("a retry is another run of the same id: its own folder, chunks and plan over what earlier attempts left", async () => {
  const first = await rig.job("again", 2, {}, { generate: async () => ({ result: failedResult }) });
  const failed = await first.result();
  assert.deepEqual([failed.state, failed.failed], ["done", 2]);
  const second = await rig.job("again", 2, { attempt: 1, previous: failed.records });
  const result = await second.result();
  assert.deepEqual([result.attempt, result.done, result.failed], [1, 2, 0]);
  assert.deepEqual(second.calls.plans.at(-1)?.previous, failed.records);
  assert.equal(second.calls.plans.at(-1)?.folder, "again/retry-1");
  assert.deepEqual(
    result.records.map(({ folder }) => folder),
    ["again", "again/retry-1"],
  );
  assert.ok(
    second.calls.generates.slice(2).every(({ folder, attempt }) => folder === "again/retry-1" && attempt === 1),
  );
  const { status } = await rig.environment.client.workflow.getHandle(chunkId("again", 0, 1)).describe();
  assert.equal(status.name, "COMPLETED");
});

const onMatcher = (stage: string) =>
  `${stage === "features" ? "encode" : "compare"} on ${stage === "query" ? "query" : "encode"}.cdcdcdcdcdcd.f32`;

for (const task of ["match", "classify", "index"] as const) {
  test(`${task}: one activity when fused, encode and then compare when split, over again what was missing`, async () => {
    const compared = { texts: ["a dog"], templates: ["a photo of {}"] };
    const fused = await rig.job(`${task}-fused`, 2, { chunkSize: 2, task, model: matcher, ...compared });
    assert.equal((await fused.result()).done, 2);
    assert.deepEqual(fused.calls.order, [onMatcher("compare")]);
    const { encoded, asked: { texts, templates } = {} } = fused.calls.compares[0] ?? {};
    assert.deepEqual([encoded, { texts, templates }], [null, compared]);

    const missing = { absent: [1], damaged: [0] };
    const split = await rig.job(
      `${task}-split`,
      2,
      { chunkSize: 2, task, model: matcher, topology: "split" },
      { compare: async ({ round }) => (round === 0 ? { result: null, missing } : {}) },
    );
    const result = await split.result();
    assert.deepEqual([result.done, result.reencoded], [2, 2]);
    const round = [onMatcher("features"), onMatcher("query")];
    assert.deepEqual(split.calls.order, [...round, ...round]);
    assert.deepEqual(
      split.calls.encodes.map((input) => input.missing),
      [null, missing],
    );
    assert.deepEqual(
      split.calls.compares.map(({ encoded, last }) => [encoded?.length, last]),
      [
        [1, false],
        [2, false],
      ],
    );
    assert.deepEqual(result.stages.encode?.made, 4);
    assert.deepEqual(result.stages.query?.made, 4);
  });
}

test("capfilt: the captioner's stages, then the filter's with the captions' digest", async () => {
  const filter = { model: matcher, threshold: 0.25 };
  const own = (stage: string) => `${stage} on ${stage}.abababababab.f32`;
  const fused = await rig.job("capfilt-fused", 2, { chunkSize: 2, task: "capfilt", filter });
  const result = await fused.result();
  assert.deepEqual([result.done, result.failed], [2, 0]);
  assert.deepEqual(fused.calls.order, [own("encode"), own("generate"), onMatcher("compare")]);
  assert.deepEqual(fused.calls.compares[0]?.captions, committed("chunks/0/generate.jsonl", ""));
  assert.deepEqual(fused.calls.compares[0]?.asked.filter, filter);
  assert.deepEqual([result.stages.encode?.made, result.stages.generate?.made], [4, 2]);

  const split = await rig.job("capfilt-split", 1, { task: "capfilt", topology: "split", filter });
  await split.result();
  const stages = [own("encode"), own("query"), own("generate"), onMatcher("features"), onMatcher("query")];
  assert.deepEqual(split.calls.order, stages);
});

test("the first failure is told, and stays through continue-as-new", async () => {
  const firstFailure = { id: "a.jpg", error: { type: "ImageError", message: "expected an image, got none" } };
  const job = await rig.job(
    "first-failure",
    40,
    { window: 4 },
    {
      generate: async ({ chunk }) =>
        chunk === 0 ? { result: { ...failedResult, done: 0, failed: 1, firstFailure } } : {},
    },
  );
  const first = (await job.handle.describe()).runId;
  const result = await job.result();
  assert.deepEqual([result.failed, result.firstFailure], [1, firstFailure]);
  assert.notEqual((await job.handle.describe()).runId, first);
});

test("answer: a history goes in front of the question; what is none, or has no question behind it, is refused", async () => {
  const { client } = rig.environment;
  const history = [{ question: "what is it?", answer: "a dog" }];
  const run = (workflowId: string, more: object) =>
    client.workflow.execute("answer", {
      taskQueue: "jobs",
      workflowId,
      args: [{ image: "file:///a.jpg", model, ...more }],
    });
  for (const [name, more] of [
    ["no list", { question: "why?", history: "a dog" }],
    ["no turn", { question: "why?", history: [null] }],
    ["no answer", { question: "why?", history: [{ question: "what?" }] }],
    ["no question", { history }],
  ] as const) {
    await assert.rejects(run(`answer-${name}`, more), (error) => {
      assert.ok(error instanceof WorkflowFailedError && error.cause instanceof ApplicationFailure);
      assert.equal(error.cause.type, "AnswerInputError");
      return /^answer: expected a history of \{ question, answer \}/.test(error.cause.message);
    });
  }
  const result = await run("answer-history", { question: "why?", history });
  assert.equal((result as { text: string }).text, "two cats");
  assert.deepEqual(rig.answered.at(-1)?.turns, history);
  await run("answer-alone", { question: "why?", history: [] });
  assert.ok(rig.answered.length > 1 && !("turns" in (rig.answered.at(-1) ?? {})));
});
