// One answer wherever it is made: in this process, by a fused worker, and by three workers with one stage each.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { answer } from "../../src/answer.ts";
import { requestFor } from "../../src/cli/job-submit.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { cacheFolder, jobFolderUri } from "../../src/jobs/roots.ts";
import { connectNats } from "../../src/messages/connect.ts";
import { defaultGeneration, type Stages } from "../../src/stages.ts";
import { questionText } from "../../src/text/prompts.ts";
import { connectJobs } from "../../src/workers/job-client.ts";
import { openStagesGroup, type StagesGroup } from "../../src/workers/stages.ts";
import { runWorker } from "../../src/workers/worker.ts";
import { workerLog } from "../../src/workers/worker-log.ts";
import { Fleet, runCommand } from "./fleet.ts";
import { writeManifest, writePictures } from "./pictures.ts";

const model = join(packageRoot, "test", "fixtures", "models", "blip2-opt-tiny");
const withoutQuery = join(packageRoot, "test", "fixtures", "blip", "blip-vqa-tiny");
const instructed = join(packageRoot, "test", "fixtures", "instructblip", "instructblip-vicuna-tiny");
const distinct = 100;
const asked = ["--model", model, "--dtype", "f32", "--max-new-tokens", "8"];

let images: string;
let paths: string[];
let manifest: string;
let fleet: Fleet;

before(async () => {
  images = await mkdtemp(join(tmpdir(), "blipfleet-images-"));
  paths = await writePictures(images, distinct);
  manifest = await writeManifest(images, paths, 2);
  fleet = await Fleet.open(images);
});

after(async () => {
  await fleet?.close();
  await rm(images, { recursive: true, force: true });
});

/** Messages in the stream by kind. */
async function stored(): Promise<Record<string, number>> {
  const connection = await connectNats({ NATS_URL: fleet.nats.url });
  try {
    const manager = await jetstreamManager(connection);
    const counts: Record<string, number> = {};
    for await (const { config, state } of manager.streams.list()) {
      for (let sequence = state.first_seq; sequence <= state.last_seq; sequence += 1) {
        const message = await manager.streams.getMessage(config.name, { seq: sequence });
        const kind = message?.header.get("Blipfleet-Kind") ?? "none";
        counts[kind] = (counts[kind] ?? 0) + 1;
      }
    }
    return counts;
  } finally {
    await connection.close();
  }
}

async function runJob(jobId: string, topology: "fused" | "split"): Promise<string> {
  await fleet.must(["job", "submit", manifest, "--id", jobId, "--topology", topology, ...asked]);
  await fleet.must(["job", "watch", jobId]);
  return fleet.must(["job", "export", jobId]);
}

test("a model without a query stage: questions in this process, and by two workers with one stage each", async () => {
  const [image = "", other = ""] = paths;
  const questions = ["how many cats are there?", "red"];
  const flags = ["--model", withoutQuery, "--dtype", "f32", "--max-new-tokens", "8"];
  const local = await runCommand(["ask", image, ...questions, ...flags, "--format", "jsonl"]);
  assert.equal(local.status, 0, local.stderr);
  await fleet.nats.restart({ empty: true });
  const parts = [];
  for (const stage of ["encode", "generate"] as const) {
    parts.push(await fleet.worker({ model: withoutQuery, stages: [stage] }));
  }
  const list = join(images, "questions.jsonl");
  const items = [...questions.map((prompt) => ({ image, prompt })), { image: other, prompt: "red" }];
  await writeFile(list, items.map((item) => `${JSON.stringify(item)}\n`).join(""));
  const submit = ["job", "submit", list, "--id", "no-query", "--task", "ask", ...flags];
  const split = await fleet.run([...submit, "--topology", "split"]);
  assert.equal(split.status, 2);
  assert.match(
    split.stderr,
    /--topology split: expected a model whose query is a stage of its own, got .*blip-vqa-tiny, /,
  );
  const caption = await fleet.run(["job", "submit", image, "--id", "wrong-task", ...flags]);
  assert.equal(caption.status, 2);
  assert.match(caption.stderr, /expected a model that captions images, got BlipForQuestionAnswering, /);
  await fleet.must(submit);
  await fleet.must(["job", "watch", "no-query"]);
  const exported = answers(await fleet.must(["job", "export", "no-query"]));
  assert.deepEqual(exported.slice(0, 2), answers(local.stdout));
  assert.equal(exported.length, 3);
  assert.deepEqual(await stored(), { features: 2 });

  // Given answers, named in the job's input by their digest.
  const given = join(images, "answers.txt");
  await writeFile(given, Array.from({ length: 40 }, (_, n) => `${["red", "a cat", "two"][n % 3]} ${n}\n`).join(""));
  const chosen = ["--answers", given, "--keep-answers", "7"];
  const model = flags.slice(0, 4);
  const ranked = await runCommand(["ask", image, ...questions, ...chosen, ...model, "--format", "jsonl"]);
  assert.equal(ranked.status, 0, ranked.stderr);
  await fleet.must(["job", "submit", list, "--id", "ranked", "--task", "ask", ...chosen, ...model]);
  await fleet.must(["job", "watch", "ranked"]);
  const results = await fleet.must(["job", "export", "ranked"]);
  assert.deepEqual(answers(results).slice(0, 2), answers(ranked.stdout));
  const scored = (line: string) => JSON.parse(line).score ?? assert.fail(line);
  assert.deepEqual(results.split("\n").slice(0, 2).map(scored), ranked.stdout.trimEnd().split("\n").map(scored));
  for (const part of parts) assert.equal(await part.stop(), 0, part.log);
});

test("a Q-Former that reads the question: in this process, fused and split give the same lines, and images are encoded once", async () => {
  const flags = ["--model", instructed, "--dtype", "f32", "--max-new-tokens", "8"];
  const pictures = paths.slice(0, 3);
  const questions = ["how many cats are there?", "red"];
  const local: string[] = [];
  for (const image of pictures) {
    const { status, stdout, stderr } = await runCommand(["ask", image, ...questions, ...flags, "--format", "jsonl"]);
    assert.equal(status, 0, stderr);
    local.push(...answers(stdout));
  }
  const list = join(images, "instructions.jsonl");
  const items = pictures.flatMap((image) => questions.map((prompt) => ({ image, prompt })));
  await writeFile(list, items.map((item) => `${JSON.stringify(item)}\n`).join(""));
  const worker = await fleet.worker({ model: instructed });
  for (const topology of ["fused", "split"]) {
    await fleet.nats.restart({ empty: true });
    const id = `instructed-${topology}`;
    await fleet.must(["job", "submit", list, "--id", id, "--task", "ask", "--topology", topology, ...flags]);
    await fleet.must(["job", "watch", id]);
    assert.deepEqual(answers(await fleet.must(["job", "export", id])), local, topology);
    assert.deepEqual(await stored(), { features: pictures.length, prompt: items.length }, topology);
  }
  assert.equal(await worker.stop(), 0, worker.log);
  assert.ok(new Set(local).size > pictures.length, "expected answers that depend on the question");
});

/** A worker of this process, on the GPU that the test has. @returns its metrics, and how to stop it */
async function workerHere(group: StagesGroup, dtype: "int8" | "int4") {
  const stop = new AbortController();
  let ended: Promise<void> = Promise.resolve();
  const port = await new Promise<number | null>((ready, failed) => {
    ended = runWorker({
      models: [{ ref: model, dtype }],
      metricsPort: 0,
      environment: fleet.environment,
      stop: stop.signal,
      log: workerLog("silent"),
      openGroup: async () => ({ ...group, close: async () => {} }),
      onReady: ({ metricsPort }) => ready(metricsPort),
    });
    ended.catch(failed);
  });
  return {
    /** Items by stage and outcome. */
    async items(): Promise<string[]> {
      const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
      return [...metrics.matchAll(/^blipfleet_items_total\{stage="(\w+)",outcome="(\w+)"\} (\d+)$/gm)]
        .map(([, stage, outcome, count]) => `${stage} ${outcome} ${count}`)
        .sort();
    },
    async stop(): Promise<void> {
      stop.abort();
      await ended;
    },
  };
}

test("int8 and int4: a worker of each type does its type's job alone, and says what this process says", async () => {
  const count = 6;
  const source = join(images, "few");
  const pictures = await Promise.all((await writePictures(source, count)).map((path) => readFile(path)));
  const generation = { ...defaultGeneration, maxNewTokens: 8 };
  const question = "how many cats are there?";
  const saying = (stages: Stages, text: string | null) =>
    Promise.all(pictures.map(async (bytes) => (await answer(stages, bytes, text, generation)).text));
  const group = await openStagesGroup({ cacheFolder: cacheFolder(), ioThreads: 1 });
  const jobs = await connectJobs(fleet.environment);
  const stops: (() => Promise<void>)[] = [];
  try {
    const [int8, int4] = await Promise.all(
      (["int8", "int4"] as const).map((dtype) => group.open({ ref: model, dtype, purpose: "captions" })),
    );
    assert.ok(int8 && int4);
    const expected = { int8: await saying(int8, null), int4: await saying(int4, questionText(int4.card, question)) };
    assert.notDeepEqual(await saying(int8, questionText(int8.card, question)), expected.int4, "the types show");

    const asked = { generation, chunkSize: 4, window: 2 };
    const submit = async (dtype: "int8" | "int4", more: Parameters<typeof requestFor>[3]) => {
      const request = await requestFor(dtype, source, { ref: model, dtype }, { ...asked, ...more });
      await jobs.submit({ ...request, folder: jobFolderUri(dtype, fleet.environment) });
    };
    await submit("int4", { task: "ask", prompt: question, topology: "split" });
    await submit("int8", {});
    const texts = async (jobId: string) => {
      await fleet.until(jobId, "to end", ({ state }) => state === "done");
      const lines = (await fleet.must(["job", "export", jobId])).trimEnd().split("\n");
      return lines.map((line) => JSON.parse(line).text);
    };
    const first = await workerHere(group, "int8");
    stops.push(first.stop);
    assert.deepEqual(await texts("int8"), expected.int8);
    assert.equal((await fleet.progress("int4"))?.done, 0, "int4 waits for a worker of its own");
    const second = await workerHere(group, "int4");
    stops.push(second.stop);
    assert.deepEqual(await texts("int4"), expected.int4);
    assert.deepEqual(await first.items(), [`encode made ${count}`, `generate made ${count}`]);
    assert.deepEqual(
      await second.items(),
      ["encode", "generate", "query"].map((stage) => `${stage} made ${count}`),
    );
  } finally {
    await Promise.all(stops.map((stop) => stop()));
    await jobs.close();
    await group.close();
  }
});

/** The part of a line that is the same for `caption` and a job. */
function answers(jsonl: string): string[] {
  return jsonl
    .trimEnd()
    .split("\n")
    .map((line) => {
      const { image, text, token_ids } = JSON.parse(line);
      return JSON.stringify({ image, text, token_ids });
    });
}

test("200 images, half of them repeated: local, fused and split runs give the same lines", async () => {
  const local = await runCommand(["caption", ...paths, ...paths, ...asked, "--format", "jsonl"]);
  assert.equal(local.status, 0, local.stderr);

  await fleet.nats.restart({ empty: true });
  const all = await fleet.worker({ model });
  const fused = await runJob("fused", "fused");
  assert.deepEqual(await stored(), { prompt: distinct });
  assert.equal(await all.stop(), 0, all.log);

  await fleet.nats.restart({ empty: true });
  const parts = [];
  for (const stage of ["encode", "query", "generate"] as const)
    parts.push(await fleet.worker({ model, stages: [stage] }));
  const split = await runJob("split", "split");
  assert.deepEqual(await stored(), { features: distinct, prompt: distinct });
  for (const part of parts) assert.equal(await part.stop(), 0, part.log);

  assert.equal(split, fused);
  assert.deepEqual(answers(fused), answers(local.stdout));
  assert.equal(answers(fused).length, 2 * distinct);
  assert.ok(new Set(answers(fused)).size > distinct / 2, "expected pictures that get different captions");
});
