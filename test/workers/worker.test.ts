// Workers of real servers with stages that need no GPU: every topology, fault and message of a job, seen from outside.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { describeOnce } from "../../examples/answer-from-another-service/service.ts";
import { attemptsOf, exportLines } from "../../src/jobs/results.ts";
import { connectNats } from "../../src/messages/connect.ts";
import type { ItemResult } from "../../src/messages/item-result.ts";
import { chunkWorkflowId, jobWorkflowId, stageQueue } from "../../src/messages/queues.ts";
import type { JobStatus } from "../../src/workers/job-client.ts";
import { JobError, NoWorkerError } from "../../src/workers/job-errors.ts";
import type { AnswerInput } from "../../src/workflows/answer-types.ts";
import { eventually, gate } from "../workflows/rig.ts";
import { fakeCard, fakeStages } from "./fake-stages.ts";
import { requestOf, type Stack, startStack, writeImages } from "./stack.ts";

let stack: Stack;

before(async () => {
  stack = await startStack();
});

afterEach(() => stack.stopWorkers());

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

const texts = (results: readonly ItemResult[]) => results.map((result) => ("text" in result ? result.text : ""));

test("split over three workers of one stage each: the same lines as fused; the stream holds one prompt per image", async () => {
  const source = writeImages(
    stack,
    "split",
    images(17, 6).map((text) => `split ${text}`),
  );
  const models = [fakeStages(), fakeStages(), fakeStages()] as const;
  const workers = await Promise.all([
    stack.worker({ stages: ["encode"], jobs: true, model: models[0] }),
    stack.worker({ stages: ["query"], jobs: false, model: models[1] }),
    stack.worker({ stages: ["generate"], jobs: false, model: models[2] }),
  ]);
  await stack.jobs.submit(requestOf(stack, "split", source, { topology: "split" }));
  const split = await finished("split");
  assert.deepEqual([split.progress.state, split.progress.done], ["done", 17]);
  assert.deepEqual(Object.keys(split.progress.stages).sort(), ["encode", "generate", "query"]);
  const rows = models.map((model) => new Set(model.rows.map(({ stage }) => stage)));
  assert.deepEqual(rows, [new Set(["encode"]), new Set(["query"]), new Set(["generate"])]);
  await Promise.all(workers.map((worker) => worker.stop()));

  const worker = await stack.worker({ model: fakeStages() });
  await stack.jobs.submit(requestOf(stack, "split-fused", source));
  const fused = await finished("split-fused");
  assert.deepEqual(await resultsOf(split), await resultsOf(fused));
  // What split published is what fused reads: nothing was encoded again.
  assert.equal(fused.progress.stages.encode?.made, 0);
  assert.equal(models[1].rows.length, 6);
  await worker.stop();
});

test("bad images are lines with their class; a retry runs them alone, and the export takes the newer line", async () => {
  const worker = await stack.worker({ model: fakeStages() });
  const contents = images(12);
  contents[3] = "not an image";
  contents[7] = "";
  const source = writeImages(stack, "bad", contents);
  await stack.jobs.submit(requestOf(stack, "bad", source, { task: "ask", prompt: "how many?" }));
  const first = await finished("bad");
  assert.deepEqual([first.execution, first.progress.done, first.progress.failed], ["COMPLETED", 10, 2]);
  const before = await resultsOf(first);
  for (const i of [3, 7]) {
    const line = before[i];
    assert.ok(line?.status === "failed");
    assert.deepEqual([line.error.type, line.question], ["ImageError", "how many?"]);
  }

  writeFileSync(join(source, "0003.jpg"), "image again");
  assert.deepEqual(await stack.jobs.retry("bad"), { attempt: 1, items: 2 });
  const second = await finished("bad");
  assert.deepEqual([second.progress.attempt, second.progress.done, second.progress.failed], [1, 1, 1]);
  const after = await resultsOf(second);
  assert.deepEqual(
    after.map(({ status }) => status),
    contents.map((_, i) => (i === 7 ? "failed" : "done")),
  );
  assert.deepEqual(
    after.filter((_, i) => i !== 3),
    before.filter((_, i) => i !== 3),
  );

  writeFileSync(join(source, "0007.jpg"), "image at last");
  assert.deepEqual(await stack.jobs.retry("bad"), { attempt: 2, items: 1 });
  const third = await finished("bad");
  assert.ok((await resultsOf(third)).every(({ status }) => status === "done"));
  await assert.rejects(stack.jobs.retry("bad"), (error: Error) => {
    assert.ok(error instanceof JobError);
    assert.match(error.message, /got none; all 1 are done/);
    return true;
  });
  await worker.stop();
});

test("the client's mistakes have a class and a sentence", async () => {
  await assert.rejects(stack.jobs.status("nobody"), { name: "JobError", message: /expected a job nobody, got none/ });
  await assert.rejects(stack.jobs.retry("nobody"), { name: "JobError" });
  const source = writeImages(stack, "mistakes", images(2));
  // Nobody serves the queue: a running job cannot say how it stands.
  await stack.jobs.submit(requestOf(stack, "lonely", source));
  await assert.rejects(stack.jobs.status("lonely"), NoWorkerError);
  await assert.rejects(stack.jobs.submit(requestOf(stack, "lonely", source)), {
    name: "JobError",
    message: /expected lonely to be a new id/,
  });
  const worker = await stack.worker({ model: fakeStages() });
  assert.equal((await finished("lonely")).progress.done, 2);
  await assert.rejects(stack.jobs.cancel("lonely"), { name: "JobError", message: /got one that is completed/ });
  const outside = requestOf(stack, "outside", "/");
  await stack.jobs.submit(outside);
  await assert.rejects(stack.jobs.planned("outside"), {
    name: "PathError",
    message: /^path: expected one below/,
  });
  await worker.stop();
});

test("queues that nobody serves are named, by model and dtype", async () => {
  const foreign = { ...fakeCard, digest: "f".repeat(64) };
  const worker = await stack.worker({ model: fakeStages(), stages: ["encode", "generate"] });
  await eventually("Temporal to see the worker", async () => {
    return (await stack.jobs.unserved({ task: "caption", model: fakeCard, topology: "fused" })).length === 0;
  });
  const unserved = async (asked: Parameters<typeof stack.jobs.unserved>[0]) =>
    (await stack.jobs.unserved(asked)).map(({ model, queues }) => [model.digest.slice(0, 4), ...queues]);
  assert.deepEqual(await unserved({ task: "caption", model: foreign, topology: "split" }), [
    ["ffff", "encode.ffffffffffff.f32", "query.ffffffffffff.f32", "generate.ffffffffffff.f32"],
  ]);
  assert.deepEqual(await unserved({ task: "match", model: foreign, topology: "fused" }), [
    ["ffff", "encode.ffffffffffff.f32"],
  ]);
  const filter = { model: foreign, threshold: 0.5 };
  const captioner = { ...fakeCard, digest: "e".repeat(64) };
  assert.deepEqual(await unserved({ task: "capfilt", model: captioner, filter, topology: "split" }), [
    ["eeee", "encode.eeeeeeeeeeee.f32", "query.eeeeeeeeeeee.f32", "generate.eeeeeeeeeeee.f32"],
    ["ffff", "encode.ffffffffffff.f32", "query.ffffffffffff.f32"],
  ]);
  await worker.stop();
});

test("NATS restarted empty in the middle: prompts are encoded again, and the job ends with the same texts", async () => {
  const source = writeImages(
    stack,
    "restart",
    images(30).map((text) => `restart ${text}`),
  );
  let emptied: Promise<void> | undefined;
  const model = fakeStages(0, async (stage) => {
    if (stage !== "generate") return;
    emptied ??= stack.nats.restart({ empty: true });
    await emptied;
  });
  const worker = await stack.worker({ model, itemsInFlight: 4 });
  await stack.jobs.submit(requestOf(stack, "restart", source, { chunkSize: 15 }));
  const status = await finished("restart");
  assert.deepEqual([status.progress.state, status.progress.done, status.progress.failed], ["done", 30, 0]);
  assert.ok(status.progress.reencoded > 0, "nothing was encoded again");
  await stack.jobs.submit(requestOf(stack, "undisturbed", source));
  const undisturbed = await finished("undisturbed");
  assert.deepEqual(texts(await resultsOf(status)), texts(await resultsOf(undisturbed)));
  const metrics = await (await fetch(`http://127.0.0.1:${worker.metricsPort}/metrics`)).text();
  assert.match(metrics, /blipfleet_reencodes_total [1-9]/);
  assert.match(metrics, /blipfleet_prompt_misses_total\{stage="generate",reason="absent"\} [1-9]/);
  await worker.stop();
});

const question = (image: string): AnswerInput => ({
  image,
  question: "what is it?",
  model: { ref: fakeCard.ref, digest: fakeCard.digest, dtype: "f32" },
});

test("answer: the text of a job that asks the same, while a batch fills every slot, with interactive rows", async () => {
  const source = writeImages(stack, "answer", ["one image", "not an image"]);
  let hold = true;
  const model = fakeStages(0, async () => {
    while (hold) await delay(10);
  });
  const worker = await stack.worker({ model, itemsInFlight: 2 });
  const busy = writeImages(
    stack,
    "busy",
    images(40).map((text) => `busy ${text}`),
  );
  await stack.jobs.submit(requestOf(stack, "busy", busy, { window: 8, chunkSize: 5 }));
  await eventually("every slot to be taken", () => model.rows.length >= 4);
  const waiting = stack.jobs.answer("answer-1", question(join(source, "0000.jpg")));
  try {
    await eventually("the answer's row", () => model.rows.some(({ priority }) => priority === "interactive"));
  } finally {
    hold = false;
  }
  const answer = await waiting;
  assert.deepEqual([answer.image, answer.question], [join(source, "0000.jpg"), "what is it?"]);
  assert.ok(model.rows.filter(({ priority }) => priority === "interactive").length === 2);
  await finished("busy");

  await stack.jobs.submit(requestOf(stack, "answer", source, { task: "ask", prompt: "what is it?" }));
  const asked = await finished("answer");
  assert.deepEqual(texts(await resultsOf(asked)), [answer.text, ""]);
  await assert.rejects(stack.jobs.answer("answer-2", question(join(source, "0001.jpg"))), {
    name: "JobError",
    message: /ImageError/,
  });
  await assert.rejects(stack.jobs.answer("answer-3", question("/etc/hostname")), { message: /PathError/ });
  const both = { ...question(join(source, "0000.jpg")), prompt: "a photo of" };
  await assert.rejects(stack.jobs.answer("answer-4", both), { message: /AnswerInputError: .* got both/ });
  for (const [i, wrong] of [{}, { image: "x" }, { image: 5, model: {} }, null].entries()) {
    await assert.rejects(stack.jobs.answer(`answer-wrong-${i}`, wrong as unknown as AnswerInput), {
      message: /AnswerInputError: answer: expected/,
    });
  }
  await worker.stop();
});

test("another service's workflow asks as its own children, and hears of a bad image by its class", async () => {
  const source = writeImages(stack, "product", ["product", "not an image"]);
  const model = fakeStages();
  await stack.worker({ model });
  const { ref, digest, dtype } = fakeCard;
  const describe = (name: string) =>
    describeOnce(stack.temporal.address, { image: join(source, name), model: { ref, digest, dtype } });
  const description = await describe("0000.jpg");
  assert.ok("answers" in description);
  assert.deepEqual(Object.keys(description.answers), ["what is it?", "what color is it?", "how many are there?"]);
  assert.equal(new Set(Object.values(description.answers)).size, 3);
  assert.equal(model.rows.filter(({ stage }) => stage === "encodeAndQuery").length, 1);
  assert.deepEqual(await describe("0001.jpg"), { unusable: "image: expected an image, got none" });
});

test("SIGTERM drains: what is under way is committed, another worker goes on, nothing is generated twice", async () => {
  const source = writeImages(
    stack,
    "drain",
    images(64).map((text) => `drain ${text}`),
  );
  const held = gate();
  let generating = 0;
  const first = fakeStages(0, async (stage) => {
    if (stage !== "generate") return;
    generating += 1;
    if (generating > 30) await held.passed;
  });
  const one = await stack.worker({ model: first, itemsInFlight: 4 });
  await stack.jobs.submit(requestOf(stack, "drain", source, { chunkSize: 64, window: 1 }));
  await eventually("half of the chunk", () => generating > 30);
  const second = fakeStages();
  const two = await stack.worker({ model: second });
  const stopped = one.stop();
  held.open();
  await stopped;
  const status = await finished("drain");
  assert.deepEqual([status.progress.done, status.progress.failed], [64, 0]);
  const generated = [first, second].map(({ rows }) => rows.filter(({ stage }) => stage === "generate").length);
  // Only groups of 16 that the stop cut in two are done again.
  assert.ok((generated[0] ?? 0) < 64 && (generated[0] ?? 0) + (generated[1] ?? 0) < 64 + 16, `${generated} rows`);
  await two.stop();
});

test("a GPU that is lost ends the process; its work goes to another worker", async () => {
  const source = writeImages(
    stack,
    "lost",
    images(8).map((text) => `lost ${text}`),
  );
  let lose: (error: Error) => void = () => {};
  const fatal = new Promise<Error>((resolve) => {
    lose = resolve;
  });
  const lostError = Object.assign(new Error("device: lost (unknown)"), { name: "DeviceLostError" });
  const dying = fakeStages(0, async () => {
    lose(lostError);
    throw lostError;
  });
  const exits: number[] = [];
  const one = await stack.worker({ model: dying, fatal, exit: (code) => exits.push(code) });
  await stack.jobs.submit(requestOf(stack, "lost", source));
  await eventually("the process to end", () => exits.length > 0);
  await one.stop();
  const two = await stack.worker({ model: fakeStages() });
  const status = await finished("lost");
  assert.deepEqual([status.progress.done, status.progress.failed], [8, 0]);
  assert.deepEqual(exits, [1]);
  await two.stop();
});

test("versioned workers: what starts on a version is pinned to it", async () => {
  const source = writeImages(
    stack,
    "versions",
    images(6).map((text) => `versions ${text}`),
  );
  const { client } = stack.jobs;
  const version = (buildId: string) => ({ BLIPFLEET_DEPLOYMENT: "fleet", BLIPFLEET_BUILD_ID: buildId });
  const makeCurrent = (buildId: string) =>
    client.workflowService.setWorkerDeploymentCurrentVersion({
      namespace: "default",
      deploymentName: "fleet",
      buildId,
      ignoreMissingTaskQueues: true,
    });
  await stack.worker({ model: fakeStages(), environment: version("1") });
  await eventually("the server to know the version", () =>
    makeCurrent("1").then(
      () => true,
      () => false,
    ),
  );
  await stack.jobs.submit(requestOf(stack, "versions", source));
  const status = await finished("versions");
  assert.deepEqual([status.progress.state, status.progress.done], ["done", 6]);
  const { raw } = await client.workflow.getHandle(chunkWorkflowId(jobWorkflowId("versions"), 0, 0)).describe();
  const { versioningInfo } = raw.workflowExecutionInfo ?? {};
  assert.equal(versioningInfo?.behavior, pinned);
  assert.equal(versioningInfo?.deploymentVersion?.buildId, "1");
  await client.workflowService.setWorkerDeploymentCurrentVersion({
    namespace: "default",
    deploymentName: "fleet",
    buildId: "",
    ignoreMissingTaskQueues: true,
  });
});

/** VERSIONING_BEHAVIOR_PINNED */
const pinned = 1;

test("a stream too small for the window is refused before anything is encoded, with the numbers", async () => {
  const source = writeImages(stack, "small", images(40));
  const nats = await connectNats(stack.environment);
  await (await jetstreamManager(nats)).streams.delete("BLIPFLEET_PROMPTS");
  await nats.close();
  const environment = { BLIPFLEET_PROMPTS_MAX_BYTES: "50000" };
  const model = fakeStages();
  const worker = await stack.worker({ model, environment });
  await stack.jobs.submit(requestOf(stack, "small", source, { chunkSize: 20, window: 2 }));
  await assert.rejects(stack.jobs.planned("small"), {
    name: "PromptStoreError",
    message: /expected at most \d+ bytes in flight/,
  });
  assert.equal(model.rows.length, 0);
  await worker.stop();
});

test("workers wait for servers that are away and say a wrong setting at once", async () => {
  const away = { TEMPORAL_ADDRESS: "127.0.0.1:1" };
  const model = fakeStages();
  const started = stack.worker({ model, environment: away });
  let isOver = false;
  started.then(
    () => {
      isOver = true;
    },
    () => {
      isOver = true;
    },
  );
  await delay(1500);
  assert.equal(isOver, false, "it gave up");
  await assert.rejects(stack.worker({ model, environment: { TEMPORAL_ADDRESS: "nowhere" } }), {
    name: "TemporalConfigError",
    message: /expected host:port, got "nowhere"/,
  });
  assert.equal(stageQueue("encode", fakeCard, "now"), "encode.0123456789ab.f32.now");
});
