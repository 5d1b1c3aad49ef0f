// Activities alone, in Temporal's mock environment: resuming, first writer wins, what is whose mistake.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { ApplicationFailure, CancelledFailure } from "@temporalio/common";
import { MockActivityEnvironment } from "@temporalio/testing";
import { DefaultLogger } from "@temporalio/worker";
import { keepAnswers } from "../../src/jobs/answer-lists.ts";
import { planManifest } from "../../src/jobs/manifest.ts";
import { readResults, stageObjectName } from "../../src/jobs/results.ts";
import { rootCheck } from "../../src/jobs/roots.ts";
import { openStore, sha256 } from "../../src/jobs/store.ts";
import { PromptStoreError, PromptStoreUnavailableError } from "../../src/messages/errors.ts";
import type { Asked, ChunkIdentity, GenerateInput } from "../../src/messages/job.ts";
import { type MemoryPromptStore, memoryPromptStore } from "../../src/messages/memory-prompt-store.ts";
import { defaultGeneration, dtypes } from "../../src/stages.ts";
import { encodeOne, generateOne, queryOne } from "../../src/workers/activities/answer.ts";
import { encode, query } from "../../src/workers/activities/encode.ts";
import { generate } from "../../src/workers/activities/generate.ts";
import { InFlight } from "../../src/workers/activities/in-flight.ts";
import { fold, plan } from "../../src/workers/activities/jobs.ts";
import { toFailure } from "../../src/workers/activities/mistakes.ts";
import { featuresName, promptNames } from "../../src/workers/activities/prompt-names.ts";
import type { Serving } from "../../src/workers/activities/serving.ts";
import { WorkerMetrics } from "../../src/workers/metrics.ts";
import { temporaryFolder } from "../jobs/temporary-folder.ts";
import { gate } from "../workflows/rig.ts";
import { type FakeStages, fakeCard, fakeStages, featuresCard, instructedCard } from "./fake-stages.ts";

const folder = temporaryFolder();
const images = join(folder, "images");
const roots = rootCheck([folder]);
let jobs = 0;

before(() => {
  mkdirSync(images);
  for (let i = 0; i < 40; i += 1) writeFileSync(join(images, `${String(i).padStart(2, "0")}.jpg`), `image ${i}`);
});

const asked = (topology: "fused" | "split" = "fused"): Asked => ({
  task: "caption",
  model: { ref: "fake", digest: fakeCard.digest, dtype: "f32" },
  topology,
  prompt: null,
  generation: defaultGeneration,
});

interface Bench extends Serving {
  readonly stages: FakeStages;
  readonly prompts: MemoryPromptStore;
}

function serving(stages = fakeStages(), more: Partial<Bench> = {}): Bench {
  return {
    stages,
    prompts: memoryPromptStore(),
    roots,
    maker: { adapter: "fake", worker: "test" },
    metrics: new WorkerMetrics(),
    itemsInFlight: 4,
    draining: new AbortController().signal,
    publishing: new InFlight(),
    ...more,
  };
}

/** A chunk over all images, in a job folder of its own. */
async function aChunk(source = images, count = 40): Promise<ChunkIdentity> {
  jobs += 1;
  const uri = pathToFileURL(join(folder, `job-${jobs}`)).href;
  const manifest = await planManifest(openStore(uri), source, { roots });
  return { jobId: `job-${jobs}`, attempt: 0, folder: uri, manifest, chunk: 0, first: 0, count };
}

// Failures that tests provoke would fill the output.
const mock = () => new MockActivityEnvironment(undefined, { logger: new DefaultLogger("ERROR") });

const run = <T>(activity: () => Promise<T>): Promise<T> => mock().run(activity) as Promise<T>;

const rows = (stages: FakeStages, stage: string) => stages.rows.filter((row) => row.stage === stage).length;

async function generated(served: Bench, chunk: ChunkIdentity, more: Partial<GenerateInput> = {}) {
  const encoded = await run(() => encode(served, { ...chunk, asked: asked(), round: 0, missing: null }));
  const input = { ...chunk, asked: asked(), round: 0, prompts: [encoded.committed], last: false, ...more };
  return { input, outcome: await run(() => generate(served, input)) };
}

test("one image under every type: a prompt and features of its own, so that no worker reads what another type made", () => {
  const cards = dtypes.map((dtype) => ({ ...fakeCard, dtype }));
  const keys = cards.flatMap((card) => {
    const { prompt, features, image } = promptNames(Buffer.from("image"), card, undefined);
    assert.deepEqual(featuresName(image, card), features);
    return [prompt.key, features.key];
  });
  assert.equal(new Set(keys).size, 2 * dtypes.length);
});

test("encode resumes by asking the prompt store", async () => {
  const chunk = await aChunk();
  let encoded = 0;
  const dying = fakeStages(0, async () => {
    encoded += 1;
    if (encoded > 10) throw new PromptStoreUnavailableError("NATS is away");
  });
  const first = serving(dying);
  const input = { ...chunk, asked: asked(), round: 0, missing: null };
  await assert.rejects(
    run(() => encode(first, input)),
    PromptStoreUnavailableError,
  );
  const second = serving(fakeStages(), { prompts: first.prompts });
  const outcome = await run(() => encode(second, input));
  assert.equal(first.prompts.messages.size, 40);
  assert.deepEqual([outcome.made, outcome.reused], [40 - 10, 10]);
  assert.equal(rows(second.stages, "encodeAndQuery"), 30);
});

test("a job's answers are read by the digest that its input names, and the best one is the text", async () => {
  const chunk = await aChunk();
  const served = serving();
  const list = await keepAnswers(["maybe", "no", "a cat"], { BLIPFLEET_JOBS: join(folder, "jobs") });
  assert.deepEqual(await keepAnswers(["maybe", "no", "a cat"], { BLIPFLEET_JOBS: join(folder, "jobs") }), list);
  const choosing: Asked = { ...asked(), task: "ask", prompt: "what?", answers: { ...list, keep: 2 } };
  const { outcome } = await generated(served, chunk, { asked: choosing });
  const [line] = await readResults(openStore(chunk.folder), outcome.result ?? assert.fail());
  assert.deepEqual(line?.result, {
    ...{ id: "00.jpg", image: "00.jpg", status: "done", question: "what?" },
    ...{ text: "no", token_ids: [...Buffer.from(" no")], score: -3 },
  });
  assert.deepEqual(served.stages.texts, []);
  const lost: Asked = { ...choosing, answers: { ...list, sha256: sha256(Buffer.from("another")) } };
  const other = await aChunk();
  await assert.rejects(generated(served, other, { asked: lost }), /expected .* to have SHA-256 .*, got /);
});

test("what samples is told which image it is about; settings that a job leaves out have their defaults", async () => {
  for (const topology of ["fused", "split"] as const) {
    const chunk = await aChunk();
    const served = serving();
    const sampled: Asked = { ...asked(topology), generation: { doSample: true, seed: 3 } };
    const input = { ...chunk, asked: sampled, round: 0, missing: null };
    const encoded = (await run(() => encode(served, input))).committed;
    const prompts = topology === "fused" ? encoded : (await run(() => query(served, { ...input, encoded }))).committed;
    await run(() => generate(served, { ...chunk, asked: sampled, round: 0, prompts: [prompts], last: false }));
    const digests = Array.from({ length: 40 }, (_, i) => sha256(Buffer.from(`image ${i}`)));
    assert.deepEqual(served.stages.texts.map(({ image }) => image).sort(), digests.sort(), topology);
    const generation = { ...defaultGeneration, doSample: true, seed: 3 };
    assert.deepEqual(served.stages.texts[0]?.generation, generation);

    const image = pathToFileURL(join(images, "07.jpg")).href;
    const ref = await run(() => encodeOne(served, { asked: sampled, image, overwrite: false }));
    const queried =
      topology === "fused"
        ? ref
        : await run(() => queryOne(served, { asked: sampled, encoded: ref, overwrite: false }));
    assert.ok("prompt" in queried);
    await run(() => generateOne(served, { asked: sampled, ...queried }));
    assert.deepEqual(served.stages.texts.at(-1), { generation, image: sha256(Buffer.from("image 7")) });
  }
});

test("turns before a question: read as they stand in front of it", async () => {
  const served = serving();
  const image = pathToFileURL(join(images, "05.jpg")).href;
  const turns = [{ question: "what is it?", answer: "a dog" }];
  const ref = await run(() => encodeOne(served, { asked: asked(), image, overwrite: false }));
  const textOf = async (one: Partial<Asked>) => {
    const made = await run(() => generateOne(served, { asked: { ...asked(), ...one }, ...ref }));
    assert.ok("text" in made);
    return made.text;
  };
  const verbatim = "Question: what is it? Answer: a dog. Question: why? Answer:";
  const wanted = await textOf({ task: "caption", prompt: verbatim });
  assert.equal(await textOf({ task: "ask", prompt: "why?", turns }), wanted);
  assert.notEqual(await textOf({ task: "ask", prompt: "why?" }), wanted);
});

test("two activities that want the same images encode each once", async () => {
  const [one, two] = [await aChunk(), await aChunk()];
  const served = serving(fakeStages(2));
  const input = { asked: asked(), round: 0, missing: null };
  await Promise.all([run(() => encode(served, { ...one, ...input })), run(() => encode(served, { ...two, ...input }))]);
  assert.equal(rows(served.stages, "encodeAndQuery"), 40);
});

test("the wait for another activity's image survives that activity's cancellation", async () => {
  const inFlight = new InFlight();
  const hold = gate();
  const first = inFlight.once("key", async () => {
    await hold.passed;
    throw new CancelledFailure("gone");
  });
  let done = false;
  const second = inFlight.once("key", async () => {
    done = true;
  });
  hold.open();
  await assert.rejects(first, CancelledFailure);
  assert.equal(await second, true);
  assert.ok(done);
});

test("generate resumes from groups of 16 that were committed", async () => {
  const chunk = await aChunk();
  const hold = gate();
  let started = 0;
  const dying = fakeStages(0, async (stage) => {
    if (stage !== "generate") return;
    started += 1;
    if (started > 20) await hold.passed;
  });
  const first = serving(dying);
  const { committed } = await run(() => encode(first, { ...chunk, asked: asked(), round: 0, missing: null }));
  const input = { ...chunk, asked: asked(), round: 0, prompts: [committed], last: false };
  const killed = mock();
  const ended = killed.run(() => generate(first, input)).catch((error: unknown) => error);
  while (started <= 20) await new Promise((resolve) => setTimeout(resolve, 5));
  killed.cancel("TIMED_OUT");
  hold.open();
  assert.ok((await ended) instanceof Error);

  const second = serving(fakeStages(), { prompts: first.prompts });
  const outcome = await run(() => generate(second, input));
  assert.deepEqual([outcome.result?.done, outcome.result?.failed], [40, 0]);
  // The first group was whole; of the second, four items had been generated and are generated again.
  assert.deepEqual([outcome.reused, outcome.made, rows(second.stages, "generate")], [16, 24, 24]);
});

test("first writer wins: a frozen worker that wakes up late changes neither the digest nor a byte", async () => {
  const chunk = await aChunk();
  const hold = gate();
  let frozen = false;
  const asleep = fakeStages(0, async (stage) => {
    if (stage !== "generate") return;
    frozen = true;
    await hold.passed;
  });
  // It would write other texts: as a worker of another version, or with a defect, might.
  const late = serving({ ...asleep, detokenize: async () => "from the past" });
  const { committed } = await run(() => encode(late, { ...chunk, asked: asked(), round: 0, missing: null }));
  const input = { ...chunk, asked: asked(), round: 0, prompts: [committed], last: false };
  const sleeping = run(() => generate(late, input));
  while (!frozen) await new Promise((resolve) => setTimeout(resolve, 5));
  const winner = serving(fakeStages(), { prompts: late.prompts });
  const won = await run(() => generate(winner, input));
  assert.ok(won.result);
  hold.open();
  const lost = await sleeping;
  assert.deepEqual(lost.result, won.result);
  const lines = await readResults(openStore(chunk.folder), won.result);
  assert.equal(lines.length, 40);
  assert.ok(
    lines.every(({ result }) => result.status === "done" && "text" in result && result.text !== "from the past"),
  );
});

test("bad images, and only those, are failures as data; the class and the sentence are the image's", async () => {
  const mixed = join(folder, "mixed");
  mkdirSync(mixed);
  writeFileSync(join(mixed, "a.jpg"), "image");
  writeFileSync(join(mixed, "b.jpg"), "not an image");
  writeFileSync(join(mixed, "c.jpg"), "");
  const list = join(folder, "list.txt");
  writeFileSync(list, ["a.jpg", "b.jpg", "c.jpg", "gone.jpg"].map((name) => `mixed/${name}\n`).join(""));
  const chunk = await aChunk(list, 4);
  const { outcome } = await generated(serving(), chunk);
  assert.ok(outcome.result);
  assert.deepEqual([outcome.result.done, outcome.result.failed], [1, 3]);
  const lines = await readResults(openStore(chunk.folder), outcome.result);
  assert.deepEqual(
    lines.map(({ result }) => (result.status === "failed" ? result.error.type : "done")),
    ["done", "ImageError", "ImageError", "ImageError"],
  );
});

test("missing prompts come back with their reason; encoded again they overwrite what is damaged", async () => {
  const chunk = await aChunk();
  const served = serving();
  const { committed } = await run(() => encode(served, { ...chunk, asked: asked(), round: 0, missing: null }));
  const subjects = [...served.prompts.messages.keys()];
  const [evicted = "", damaged = ""] = subjects;
  served.prompts.messages.delete(evicted);
  const message = served.prompts.messages.get(damaged);
  assert.ok(message);
  served.prompts.messages.set(damaged, { ...message, bytes: message.bytes.map((byte) => byte ^ 1) });
  const first = { ...chunk, asked: asked(), round: 0, prompts: [committed], last: false };
  const { missing, result } = await run(() => generate(served, first));
  assert.equal(result, null);
  assert.deepEqual([missing.absent.length, missing.damaged.length], [1, 1]);

  const before = rows(served.stages, "encodeAndQuery");
  const again = await run(() => encode(served, { ...chunk, asked: asked(), round: 1, missing }));
  assert.equal(rows(served.stages, "encodeAndQuery") - before, 2);
  assert.deepEqual(served.prompts.messages.get(damaged)?.bytes, message.bytes);
  const prompts = [committed, again.committed];
  const outcome = await run(() => generate(served, { ...first, round: 1, prompts }));
  assert.deepEqual([outcome.result?.done, outcome.made, outcome.reused], [40, 2, 38]);
});

test("in the last round a missing prompt is the item's failure", async () => {
  const chunk = await aChunk();
  const served = serving();
  const { committed } = await run(() => encode(served, { ...chunk, asked: asked(), round: 0, missing: null }));
  served.prompts.messages.clear();
  const input = { ...chunk, asked: asked(), round: 3, prompts: [committed], last: true };
  const { result } = await run(() => generate(served, input));
  assert.deepEqual([result?.done, result?.failed], [0, 40]);
  assert.ok(result);
  const [line] = await readResults(openStore(chunk.folder), result);
  assert.ok(line?.result.status === "failed");
  assert.equal(line.result.error.type, "PromptStoreError");
  assert.match(line.result.error.message, /got none \(absent\) after 3 further encodes/);
});

test("split: query makes of features what fused makes at once, and says which features are missing", async () => {
  const [fusedChunk, splitChunk] = [await aChunk(), await aChunk()];
  const fused = serving();
  await generated(fused, fusedChunk);
  const split = serving();
  const request = { ...splitChunk, asked: asked("split"), round: 0, missing: null };
  const encoded = await run(() => encode(split, request));
  assert.deepEqual([rows(split.stages, "encode"), rows(split.stages, "encodeAndQuery")], [40, 0]);
  const [lostFeatures = ""] = split.prompts.messages.keys();
  split.prompts.messages.delete(lostFeatures);
  const queried = await run(() => query(split, { ...request, encoded: encoded.committed }));
  assert.equal(queried.made, 39);
  const input = { ...splitChunk, asked: asked("split"), round: 0, prompts: [queried.committed], last: false };
  const { missing } = await run(() => generate(split, input));
  assert.deepEqual([missing.absent.length, missing.damaged.length], [1, 0]);

  const round = { ...request, round: 1, missing };
  const encodedAgain = await run(() => encode(split, round));
  assert.equal(encodedAgain.made, 1);
  const queriedAgain = await run(() => query(split, { ...round, encoded: encodedAgain.committed }));
  const prompts = [queried.committed, queriedAgain.committed];
  const outcome = await run(() => generate(split, { ...input, round: 1, prompts }));
  assert.ok(outcome.result);
  const name = stageObjectName(0, "generate");
  const [a, b] = await Promise.all([openStore(fusedChunk.folder).find(name), openStore(splitChunk.folder).find(name)]);
  assert.equal(a?.sha256, b?.sha256);
});

test("without a query stage the features are what generate reads, fused and split alike", async () => {
  const stages = () => fakeStages(0, async () => {}, featuresCard);
  const [fusedChunk, splitChunk] = [await aChunk(), await aChunk()];
  const fused = serving(stages());
  const { outcome } = await generated(fused, fusedChunk);
  assert.deepEqual([outcome.result?.done, outcome.result?.failed], [40, 0]);
  const split = serving(stages(), { prompts: fused.prompts });
  const request = { ...splitChunk, asked: asked("split"), round: 0, missing: null };
  const reused = await run(() => encode(split, request));
  assert.deepEqual([reused.made, reused.reused], [0, 40], "what one topology made serves the other");

  const [lost = ""] = fused.prompts.messages.keys();
  fused.prompts.messages.delete(lost);
  const queried = await run(() => query(split, { ...request, encoded: reused.committed }));
  const input = { ...splitChunk, asked: asked("split"), round: 0, prompts: [queried.committed], last: false };
  const { missing } = await run(() => generate(split, input));
  assert.deepEqual([missing.absent.length, missing.damaged.length], [1, 0]);
  const round = { ...request, round: 1, missing };
  const encodedAgain = await run(() => encode(split, round));
  const queriedAgain = await run(() => query(split, { ...round, encoded: encodedAgain.committed }));
  assert.deepEqual([encodedAgain.made, queriedAgain.made], [1, 0]);
  const prompts = [queried.committed, queriedAgain.committed];
  assert.ok((await run(() => generate(split, { ...input, round: 1, prompts }))).result);

  const kinds = [...fused.prompts.messages.values()].map(({ headers }) => headers["Blipfleet-Kind"]);
  assert.deepEqual([kinds.length, ...new Set(kinds)], [40, "features"]);
  const done = [...fused.stages.rows, ...split.stages.rows].map(({ stage }) => stage);
  assert.deepEqual([...new Set(done)].sort(), ["encode", "generate"]);
  const name = stageObjectName(0, "generate");
  const [a, b] = await Promise.all([openStore(fusedChunk.folder).find(name), openStore(splitChunk.folder).find(name)]);
  assert.equal(a?.sha256, b?.sha256);
});

/** Three questions about one image and one about another, in a chunk of their own. */
async function aChunkOfQuestions(): Promise<ChunkIdentity> {
  const list = join(folder, `questions-${jobs}.jsonl`);
  const items = [
    { image: "images/01.jpg", prompt: "what?" },
    { image: "images/01.jpg", prompt: "how many?" },
    { image: "images/02.jpg", prompt: "what?" },
    { image: "images/01.jpg" },
  ];
  writeFileSync(list, items.map((item) => `${JSON.stringify(item)}\n`).join(""));
  return aChunk(list, items.length);
}

test("an instruction that the Q-Former reads: a prompt for each, features for all of an image, fused and split alike", async () => {
  const stages = () => fakeStages(0, async () => {}, instructedCard);
  const kinds = ({ prompts }: Bench) =>
    [...prompts.messages.values()].map(({ headers }) => headers["Blipfleet-Kind"]).sort();
  const ask = (topology: "fused" | "split"): Asked => ({ ...asked(topology), task: "ask", prompt: "where?" });
  const [fusedChunk, splitChunk] = [await aChunkOfQuestions(), await aChunkOfQuestions()];

  const fused = serving(stages());
  const request = { ...fusedChunk, asked: ask("fused"), round: 0, missing: null };
  const encoded = await run(() => encode(fused, request));
  assert.deepEqual([rows(fused.stages, "encode"), rows(fused.stages, "query")], [2, 4]);
  assert.equal(rows(fused.stages, "encodeAndQuery"), 0);
  assert.deepEqual(kinds(fused), ["features", "features", "prompt", "prompt", "prompt", "prompt"]);
  const input = { ...request, prompts: [encoded.committed], last: false };
  assert.equal((await run(() => generate(fused, input))).result?.done, 4);

  const split = serving(stages());
  const splitRequest = { ...splitChunk, asked: ask("split"), round: 0, missing: null };
  const features = await run(() => encode(split, splitRequest));
  assert.deepEqual([rows(split.stages, "encode"), rows(split.stages, "query")], [2, 0]);
  const queried = await run(() => query(split, { ...splitRequest, encoded: features.committed }));
  assert.equal(rows(split.stages, "query"), 4);
  assert.deepEqual([...split.prompts.messages.keys()].sort(), [...fused.prompts.messages.keys()].sort());
  const outcome = await run(() => generate(split, { ...splitRequest, prompts: [queried.committed], last: false }));
  assert.ok(outcome.result);
  const name = stageObjectName(0, "generate");
  const [a, b] = await Promise.all([openStore(fusedChunk.folder).find(name), openStore(splitChunk.folder).find(name)]);
  assert.equal(a?.sha256, b?.sha256);
  const texts = (await readResults(openStore(splitChunk.folder), outcome.result)).map(({ result }) =>
    "text" in result ? result.text : "",
  );
  assert.equal(new Set(texts).size, 4, "each question and image has its own text");

  // Another job about the same images: their features are found, only the new instruction is read.
  const other = { ...asked(), task: "ask", prompt: "why?" } as const;
  const before = rows(fused.stages, "encode");
  const image = pathToFileURL(join(images, "01.jpg")).href;
  const one = await run(() => encodeOne(fused, { asked: other, image, overwrite: false }));
  assert.deepEqual([rows(fused.stages, "encode"), rows(fused.stages, "query")], [before, 5]);
  assert.ok("text" in (await run(() => generateOne(fused, { asked: other, ...one }))));
  const ref = await run(() => encodeOne(split, { asked: { ...other, topology: "split" }, image, overwrite: false }));
  assert.equal(ref.prompt, one.prompt);
  await run(() => queryOne(split, { asked: { ...other, topology: "split" }, encoded: ref, overwrite: false }));
  assert.ok("text" in (await run(() => generateOne(split, { asked: other, ...ref }))));
});

test("without an instruction the empty one is meant; features that are damaged in the store are made again", async () => {
  const served = serving(fakeStages(0, async () => {}, instructedCard));
  const image = pathToFileURL(join(images, "03.jpg")).href;
  const none = await run(() => encodeOne(served, { asked: asked(), image, overwrite: false }));
  const empty = { ...asked(), prompt: "" };
  const same = await run(() => encodeOne(served, { asked: empty, image, overwrite: false }));
  assert.equal(none.prompt, same.prompt);
  const [key = "", message] =
    [...served.prompts.messages].find(([, { headers }]) => headers["Blipfleet-Kind"] === "features") ?? [];
  assert.ok(message);
  served.prompts.messages.set(key, { ...message, bytes: message.bytes.map((byte) => byte ^ 1) });
  const prompt = { ...asked(), prompt: "a" };
  await run(() => encodeOne(served, { asked: prompt, image, overwrite: false }));
  assert.equal(rows(served.stages, "encode"), 2);
  assert.deepEqual(served.prompts.messages.get(key)?.bytes, message.bytes);
});

test("a question that is missing is the item's failure where the Q-Former would read it", async () => {
  const served = serving(fakeStages(0, async () => {}, instructedCard));
  const chunk = await aChunkOfQuestions();
  const ask: Asked = { ...asked(), task: "ask" };
  const request = { ...chunk, asked: ask, round: 0, missing: null };
  const encoded = await run(() => encode(served, request));
  const { result } = await run(() => generate(served, { ...request, prompts: [encoded.committed], last: false }));
  assert.deepEqual([result?.done, result?.failed], [3, 1]);
});

test("a model that is of no use for the task is refused when the job is planned, and at every stage's end", async () => {
  const served = serving(fakeStages(0, async () => {}, featuresCard));
  const chunk = await aChunk();
  const { jobId, folder: place } = chunk;
  const wrong: Asked = { ...asked(), task: "ask", prompt: "what?" };
  const refused = (error: unknown) => {
    assert.ok(error instanceof Error);
    assert.equal(error.name, "UnsupportedModelError");
    assert.match(error.message, /^fake: expected a model that answers questions, got BlipForConditionalGeneration, /);
    const failure = toFailure(error);
    assert.ok(failure instanceof ApplicationFailure && failure.nonRetryable);
    return true;
  };
  const source = pathToFileURL(images).href;
  const planned = { jobId, source, asked: wrong, itemsInFlight: 8, attempt: 0, folder: `${place}-never`, previous: [] };
  await assert.rejects(
    run(() => plan(planned, { roots, servings: [served] })),
    refused,
  );
  assert.ok(!existsSync(fileURLToPath(planned.folder)), "a job that cannot be planned leaves no folder");
  await assert.rejects(generated(served, chunk, { asked: wrong }), refused);
});

test("every class goes where it belongs", async () => {
  const refusing = memoryPromptStore({ maxMessageBytes: 8 });
  const chunk = await aChunk();
  const input = { ...chunk, asked: asked(), round: 0, missing: null };
  await assert.rejects(
    run(() => encode(serving(fakeStages(), { prompts: refusing }), input)),
    PromptStoreError,
  );
  const failure = toFailure(new PromptStoreError("prompt store: too large"));
  assert.ok(failure instanceof ApplicationFailure);
  assert.deepEqual([failure.type, failure.nonRetryable], ["PromptStoreError", true]);
  const outage = toFailure(new PromptStoreUnavailableError("away"));
  assert.ok(outage instanceof ApplicationFailure);
  assert.deepEqual([outage.type, outage.nonRetryable], ["PromptStoreUnavailableError", false]);
  const lost = Object.assign(new Error("lost"), { name: "DeviceLostError" });
  const dying = fakeStages(0, async () => {
    throw lost;
  });
  await assert.rejects(
    run(() => encode(serving(dying), input)),
    lost,
  );
  const one = { asked: asked(), image: "/etc/hostname", overwrite: false };
  await assert.rejects(
    run(() => encodeOne(serving(), one)),
    (error: unknown) => {
      assert.ok(error instanceof ApplicationFailure);
      assert.deepEqual([error.type, error.nonRetryable], ["PathError", true]);
      return true;
    },
  );
});

test("a worker that drains ends what is under way and gives the rest up, to be tried again at once", async () => {
  const chunk = await aChunk();
  const draining = new AbortController();
  const stages = fakeStages(0, async () => {
    if (stages.rows.length === 6) draining.abort();
  });
  const served = serving(stages, { draining: draining.signal });
  await assert.rejects(
    run(() => encode(served, { ...chunk, asked: asked(), round: 0, missing: null })),
    (error: unknown) => {
      assert.ok(error instanceof ApplicationFailure);
      assert.deepEqual([error.type, error.nonRetryable, error.nextRetryDelay], ["WorkerDraining", false, "200ms"]);
      return true;
    },
  );
  assert.ok(served.prompts.messages.size >= 6 && served.prompts.messages.size < 12, `${served.prompts.messages.size}`);
});

test("pages of results name the page before them", async () => {
  const chunk = await aChunk();
  const entry = {
    chunk: 0,
    result: { name: "chunks/000000/generate.jsonl", sha256: "a".repeat(64) },
    done: 1,
    failed: 0,
  };
  const first = await fold({ folder: chunk.folder, page: { page: 0, previous: null, chunks: [entry] } });
  const second = await fold({
    folder: chunk.folder,
    page: { page: 1, previous: first, chunks: [{ ...entry, chunk: 100 }] },
  });
  assert.match(first.name, /^pages\/000000\.first\.json$/);
  assert.equal(second.name, `pages/000001.${first.sha256.slice(0, 12)}.json`);
  const again = await fold({ folder: chunk.folder, page: { page: 0, previous: null, chunks: [] } });
  assert.deepEqual(again, first);
});
