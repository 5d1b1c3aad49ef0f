// The activities of match, classify, index and capfilt alone, in Temporal's mock environment: what a killed worker leaves, what is
// missing, whose mistake what is; and that a job says what the functions of a local run say.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { MockActivityEnvironment } from "@temporalio/testing";
import { DefaultLogger } from "@temporalio/worker";
import { imageVector, labelVector, scoresOfRead } from "../../src/classifying.ts";
import { filterTexts } from "../../src/filtering.ts";
import { commitJsonl } from "../../src/jobs/jsonl.ts";
import { planManifest } from "../../src/jobs/manifest.ts";
import { attemptsOf, commitResults, exportLines, readResults } from "../../src/jobs/results.ts";
import { rootCheck } from "../../src/jobs/roots.ts";
import { openStore, sha256 } from "../../src/jobs/store.ts";
import { encodeImage, matchWith, score } from "../../src/matching.ts";
import type { Asked, ChunkIdentity, CompareInput, GenerateOutcome } from "../../src/messages/job.ts";
import { memoryPromptStore } from "../../src/messages/memory-prompt-store.ts";
import { ImageIndexWriter } from "../../src/search/vector-file-writer.ts";
import { defaultGeneration } from "../../src/stages.ts";
import { compare, encodeForComparing } from "../../src/workers/activities/compare.ts";
import { encode } from "../../src/workers/activities/encode.ts";
import { generate } from "../../src/workers/activities/generate.ts";
import { InFlight } from "../../src/workers/activities/in-flight.ts";
import { WorkerMetrics } from "../../src/workers/metrics.ts";
import { temporaryFolder } from "../jobs/temporary-folder.ts";
import { comparingCard, type FakeComparing, fakeClassifying, fakeComparing } from "./fake-comparing.ts";
import { fakeCard, fakeStages } from "./fake-stages.ts";

const folder = temporaryFolder();
const roots = rootCheck([folder]);
const bytesOf = (i: number) => Buffer.from(`image ${i}`);
let jobs = 0;

before(() => {
  mkdirSync(join(folder, "images"));
  for (let i = 0; i < 20; i += 1)
    writeFileSync(join(folder, "images", `${String(i).padStart(2, "0")}.jpg`), bytesOf(i));
  writeFileSync(join(folder, "images", "bad.jpg"), "not an image");
});

const model = { ref: comparingCard.ref, digest: comparingCard.digest, dtype: "f32" } as const;
const captioner = { ref: fakeCard.ref, digest: fakeCard.digest, dtype: "f32" } as const;

function asked(task: Asked["task"], more: Partial<Asked> = {}): Asked {
  return { task, model, topology: "fused", prompt: null, generation: defaultGeneration, ...more };
}

function serving<S>(stages: S) {
  return {
    stages,
    prompts: memoryPromptStore(),
    roots,
    maker: { adapter: "fake", worker: "test" },
    metrics: new WorkerMetrics(),
    itemsInFlight: 4,
    draining: new AbortController().signal,
    publishing: new InFlight(),
  };
}

type Line = { readonly image: string; readonly text?: unknown; readonly texts?: unknown; readonly labels?: unknown };

/** A chunk over these lines, in a job folder of its own. */
async function aChunk(
  lines: readonly Line[],
  texts: "none" | "optional" = "optional",
  textField: "text" | "label" = "text",
): Promise<ChunkIdentity> {
  jobs += 1;
  const list = join(folder, `list-${jobs}.jsonl`);
  writeFileSync(list, lines.map((line) => `${JSON.stringify({ ...line, image: `images/${line.image}` })}\n`).join(""));
  const uri = pathToFileURL(join(folder, `job-${jobs}`)).href;
  const manifest = await planManifest(openStore(uri), list, { roots, texts, textField });
  return { jobId: `job-${jobs}`, attempt: 0, folder: uri, manifest, chunk: 0, first: 0, count: lines.length };
}

// Failures that tests provoke would fill the output.
const mock = () => new MockActivityEnvironment(undefined, { logger: new DefaultLogger("ERROR") });
const run = <T>(activity: () => Promise<T>): Promise<T> => mock().run(activity) as Promise<T>;

const compareInput = (chunk: ChunkIdentity, what: Asked, more: Partial<CompareInput> = {}): CompareInput => ({
  ...{ ...chunk, asked: what, round: 0, encoded: null, captions: null, last: false },
  ...more,
});

async function results(chunk: ChunkIdentity, { result }: GenerateOutcome) {
  assert.ok(result);
  return (await readResults(openStore(chunk.folder), result)).map((line) => line.result);
}

/** The job's output, as `job export` writes it. */
async function exported(chunk: ChunkIdentity, { result }: GenerateOutcome, keptOnly = false) {
  assert.ok(result);
  const { name, sha256, done, failed } = result;
  const page = { page: 0, previous: null, chunks: [{ chunk: 0, result: { name, sha256 }, done, failed }] };
  const head = await commitJsonl(openStore(chunk.folder), "pages/0.json", [page]);
  const lines = [];
  const attempts = await attemptsOf([{ folder: chunk.folder, manifest: chunk.manifest, head }]);
  for await (const line of exportLines(attempts, { keptOnly })) lines.push(JSON.parse(line));
  return lines;
}

const rows = (stages: Pick<FakeComparing, "rows">, stage: string) => stages.rows.filter((row) => row === stage).length;

const pairs: readonly Line[] = [
  { image: "00.jpg", text: "a dog" },
  { image: "01.jpg", texts: ["a dog", "two cats", "a dog"] },
  { image: "02.jpg" },
];

test("match: fused and split say what matchWith says, for each text of each image", async () => {
  const what = asked("match", { texts: ["by the job"] });
  const chunk = await aChunk(pairs);
  const stages = fakeComparing();
  const fused = await exported(chunk, await run(() => compare(serving(stages), compareInput(chunk, what))));
  assert.equal(rows(stages, "encode"), 3);
  const wanted = [];
  for (const [i, texts] of [["a dog"], ["a dog", "two cats", "a dog"], ["by the job"]].entries()) {
    const image = await encodeImage(fakeComparing(), bytesOf(i));
    for (const text of texts) {
      const { itm, itc } = await matchWith(fakeComparing(), image, text);
      wanted.push({ image: `images/0${i}.jpg`, status: "done", text, itm: score(itm), itc: score(itc) });
    }
  }
  assert.deepEqual(
    fused.map(({ id: _, ...line }) => line),
    wanted,
  );

  const again = await aChunk(pairs);
  const served = serving(fakeComparing());
  const split = { ...what, topology: "split" as const };
  const { committed } = await run(() =>
    encodeForComparing(served, { ...again, asked: split, round: 0, missing: null }),
  );
  assert.equal(served.prompts.messages.size, 3);
  const outcome = await run(() => compare(served, compareInput(again, split, { encoded: [committed] })));
  assert.deepEqual(await exported(again, outcome), fused);
});

test("match: a text that cannot be read fails its item, and leaves the others their scores", async () => {
  const chunk = await aChunk([
    { image: "00.jpg", texts: ["a dog", "far too long a text for this"] },
    { image: "bad.jpg", text: "x" },
  ]);
  const outcome = await run(() => compare(serving(fakeComparing()), compareInput(chunk, asked("match"))));
  assert.deepEqual([outcome.result?.done, outcome.result?.failed], [0, 2]);
  assert.equal(outcome.result?.firstFailure?.error.type, "TextError");
  const lines = await exported(chunk, outcome);
  assert.deepEqual(
    lines.map(({ status, text, error }) => [status, text, error?.type]),
    [
      ["done", "a dog", undefined],
      ["failed", "far too long a text for this", "TextError"],
      ["failed", undefined, "ImageError"],
    ],
  );
});

test("classify: fused and split say what the functions of a local run say, and a process reads a label once", async () => {
  const templates = ["a photo of {}", "{}!"];
  const what = asked("classify", { texts: ["cat", "dog", "cat"], templates });
  const long = "far too long a label";
  const lines = [{ image: "00.jpg" }, { image: "01.jpg", labels: ["dog", long, "bird"] }, { image: "bad.jpg" }];
  const chunk = await aChunk(lines, "optional", "label");
  const served = serving(fakeClassifying());
  const outcome = await run(() => compare(served, compareInput(chunk, what)));
  assert.deepEqual([outcome.result?.done, outcome.result?.failed], [1, 2]);
  assert.equal(outcome.result?.firstFailure?.error.type, "TextError");
  const fused = await exported(chunk, outcome);

  const local = fakeClassifying();
  const wanted = [];
  for (const [i, labels] of [
    ["cat", "dog", "cat"],
    ["dog", long, "bird"],
  ].entries()) {
    const read = labels.map(async (label) => (label === long ? {} : labelVector(local, label, templates)));
    const scores = scoresOfRead(await imageVector(local, bytesOf(i)), await Promise.all(read), local.card.logitScale);
    for (const [at, found] of scores.entries()) {
      const line = { image: `images/0${i}.jpg`, label: labels[at] };
      if (!("logit" in found)) wanted.push({ ...line, status: "failed", error: "TextError" });
      else {
        const { logit, probability } = found;
        wanted.push({ ...line, status: "done", logit: score(logit), probability: score(probability) });
      }
    }
  }
  wanted.push({ image: "images/bad.jpg", status: "failed", error: "ImageError" });
  const named = ({ id: _, error, ...line }: Awaited<typeof fused>[number]) =>
    error ? { ...line, error: error.type } : line;
  assert.deepEqual(fused.map(named), wanted);
  const shares = fused.filter(({ image }) => image === "images/01.jpg").map(({ probability = 0 }) => probability);
  assert.ok(Math.abs(shares.reduce((sum, share) => sum + share, 0) - 1) < 1e-6, "of the labels that could be read");
  assert.equal(rows(served.stages, "queryText"), (3 + 1) * templates.length);

  const again = await aChunk(lines, "optional", "label");
  const split = { ...what, topology: "split" as const };
  const { committed } = await run(() =>
    encodeForComparing(served, { ...again, asked: split, round: 0, missing: null }),
  );
  assert.equal(served.prompts.messages.size, 2);
  const compared = await run(() => compare(served, compareInput(again, split, { encoded: [committed] })));
  assert.deepEqual(await exported(again, compared), fused);
  assert.equal(rows(served.stages, "queryText"), (3 + 1 + 1) * templates.length, "but what cannot be read");

  const bare = await aChunk([{ image: "00.jpg" }]);
  const without = await exported(
    bare,
    await run(() => compare(served, compareInput(bare, asked("classify", { texts: ["cat", "dog", "cat"] })))),
  );
  assert.notDeepEqual(without, fused.slice(0, 3), "the templates' vectors are not those of the labels alone");
  await assert.rejects(
    run(() => compare(serving(fakeComparing()), compareInput(bare, what))),
    {
      name: "UnsupportedModelError",
    },
  );
});

test("split: features that are missing or damaged come back with their reason, and in the last round fail", async () => {
  const what = asked("match", { topology: "split", texts: ["a dog"] });
  const chunk = await aChunk([{ image: "00.jpg" }, { image: "01.jpg" }, { image: "02.jpg" }]);
  const served = serving(fakeComparing());
  const first = await run(() => encodeForComparing(served, { ...chunk, asked: what, round: 0, missing: null }));
  const [evicted = "", damaged = ""] = [...served.prompts.messages.keys()];
  served.prompts.messages.delete(evicted);
  const message = served.prompts.messages.get(damaged);
  assert.ok(message);
  served.prompts.messages.set(damaged, { ...message, bytes: message.bytes.map((byte) => byte ^ 1) });
  const input = compareInput(chunk, what, { encoded: [first.committed] });
  const { missing, result } = await run(() => compare(served, input));
  assert.deepEqual([result, missing.absent.length, missing.damaged.length], [null, 1, 1]);

  const last = await run(() => compare(served, { ...input, round: 1, last: true }));
  assert.deepEqual([last.result?.done, last.result?.failed, last.reused], [1, 2, 1]);
  assert.equal(last.result?.firstFailure?.error.type, "PromptStoreError");

  const fresh = await aChunk([{ image: "00.jpg" }, { image: "01.jpg" }, { image: "02.jpg" }]);
  const again = await run(() => encodeForComparing(served, { ...fresh, asked: what, round: 1, missing }));
  assert.deepEqual(served.prompts.messages.get(damaged)?.bytes, message.bytes);
  const encoded = [first.committed, again.committed];
  const lines = [];
  for (const each of encoded) lines.push(each.name);
  assert.deepEqual(lines, ["chunks/000000/features.jsonl", "chunks/000000/features.00001.jsonl"]);
  assert.equal(rows(served.stages, "encode"), 5);
});

test("index: vectors are objects of their own; a killed worker's groups stay, copies are encoded once", async () => {
  const images = [...Array.from({ length: 20 }, (_, i) => i), 0, 1];
  const lines = images.map((i) => ({ image: `${String(i).padStart(2, "0")}.jpg` }));
  const chunk = await aChunk(lines, "none");
  let started = 0;
  const dying = fakeComparing(async (stage) => {
    if (stage === "queryImage") started += 1;
    if (started > 18) throw Object.assign(new Error("gone"), { name: "DeviceLostError" });
  });
  const input = compareInput(chunk, asked("index"));
  await assert.rejects(
    run(() => compare(serving(dying), input)),
    /gone/,
  );

  const stages = fakeComparing();
  const outcome = await run(() => compare(serving(stages), input));
  assert.deepEqual([outcome.result?.done, outcome.reused], [22, 16]);
  // Of the second group, images 16 to 19, and the copies of 0 and 1 once each.
  assert.equal(rows(stages, "encode"), 6);
  const store = openStore(chunk.folder);
  for (const [at, result] of (await results(chunk, outcome)).entries()) {
    assert.ok("vectors" in result && result.vectors.at !== null);
    const { digest, at: place } = result.vectors;
    const bytes = bytesOf(images[at] ?? -1);
    assert.equal(digest, sha256(bytes));
    assert.deepEqual(place.shape, [2, 4]);
    const { vectors } = await encodeImage(fakeComparing(), bytes);
    const object = await store.read(place.object.name, place.object.sha256);
    assert.deepEqual(new Uint8Array(object.subarray(place.row * 32, place.row * 32 + 32)), vectors.bytes);
  }
  assert.equal((await store.list("chunks/")).filter((name) => name.endsWith(".bin")).length, 2);
});

test("index: copies of an image in one chunk are encoded once", async () => {
  const chunk = await aChunk(
    [{ image: "00.jpg" }, { image: "00.jpg" }, { image: "01.jpg" }, { image: "00.jpg" }],
    "none",
  );
  const stages = fakeComparing();
  const outcome = await run(() => compare(serving(stages), compareInput(chunk, asked("index"))));
  assert.deepEqual([rows(stages, "encode"), rows(stages, "queryImage"), outcome.result?.done], [2, 2, 4]);
});

test("index: images of the index that is named are not encoded, fused or split; one of another model is refused", async () => {
  const file = join(folder, "known.index");
  const known = { ...model, queries: 2, width: 4 };
  const writer = await ImageIndexWriter.create(file, known);
  const { vectors } = await encodeImage(fakeComparing(), bytesOf(1));
  await writer.add(vectors.bytes);
  await writer.commit([{ digest: sha256(bytesOf(1)), images: [join(folder, "images", "01.jpg")] }], null);
  const lines = [{ image: "00.jpg" }, { image: "01.jpg" }];
  for (const topology of ["fused", "split"] as const) {
    const what = asked("index", { topology, known: pathToFileURL(file).href });
    const chunk = await aChunk(lines, "none");
    const served = serving(fakeComparing());
    const encoded =
      topology === "fused"
        ? null
        : [(await run(() => encodeForComparing(served, { ...chunk, asked: what, round: 0, missing: null }))).committed];
    const outcome = await run(() => compare(served, compareInput(chunk, what, { encoded })));
    assert.equal(rows(served.stages, "encode"), 1, topology);
    const places = (await results(chunk, outcome)).map((result) => "vectors" in result && result.vectors.at?.row);
    assert.deepEqual(places, [0, undefined], topology);
  }
  const what = asked("index", { known: pathToFileURL(file).href, model: { ...model, digest: "0".repeat(64) } });
  const chunk = await aChunk(lines, "none");
  await assert.rejects(
    run(() => compare(serving(fakeComparing()), compareInput(chunk, what))),
    { name: "ImageIndexError", message: /expected an index made with fake matcher \(000000000000\) as f32, got/ },
  );
  const outside = asked("index", { known: "file:///etc/hostname" });
  await assert.rejects(
    run(() => compare(serving(fakeComparing()), compareInput(chunk, outside))),
    { name: "PathError" },
  );
});

test("capfilt: a job's decisions are those of filterTexts; an image that cannot be captioned fails with its error", async () => {
  const chunk = await aChunk([
    { image: "00.jpg", text: "a dog" },
    { image: "bad.jpg", text: "a dog" },
    { image: "01.jpg" },
    { image: "02.jpg", texts: ["", "a text that is too long to judge", "A  cat", "a cat"] },
  ]);
  const filter = { model, threshold: 0.4 };
  const what = asked("capfilt", { model: captioner, filter });
  const writing = serving(fakeStages());
  const { committed } = await run(() => encode(writing, { ...chunk, asked: what, round: 0, missing: null }));
  const captions = await run(() =>
    generate(writing, { ...chunk, asked: what, round: 0, prompts: [committed], last: false }),
  );
  assert.ok(captions.result);
  const { name, sha256: digest } = captions.result;
  const judged = serving(fakeComparing());
  const outcome = await run(() => compare(judged, compareInput(chunk, what, { captions: { name, sha256: digest } })));
  assert.deepEqual([outcome.result?.done, outcome.result?.failed], [3, 1]);
  const got = await results(chunk, outcome);
  const settings = { prompt: null, generation: defaultGeneration, threshold: 0.4 };
  const texts = [["a dog"], [], ["", "a text that is too long to judge", "A  cat", "a cat"]];
  for (const [at, [place, image]] of [
    [0, 0],
    [2, 1],
    [3, 2],
  ].entries()) {
    const wanted = await filterTexts(fakeStages(), fakeComparing(), bytesOf(image ?? -1), texts[at] ?? [], settings);
    const result = got[place ?? -1];
    assert.deepEqual(result !== undefined && "decisions" in result && result.decisions, wanted);
  }
  // What the captioner could not caption is not looked at again.
  const failed = { type: "GenerationError", message: "expected at most 64 positions, got 65" };
  const named = { id: "images/00.jpg", image: "images/00.jpg" };
  const line = { index: 0, result: { ...named, status: "failed" as const, error: failed }, maker: judged.maker };
  const uncaptioned = await commitResults(openStore(chunk.folder), "uncaptioned.jsonl", [line]);
  const one = { ...compareInput(chunk, what, { captions: uncaptioned }), chunk: 1, count: 1 };
  const stages = fakeComparing();
  assert.deepEqual(await results(chunk, await run(() => compare(serving(stages), one))), [line.result]);
  assert.deepEqual(stages.rows, []);

  const lines = await exported(chunk, outcome);
  assert.deepEqual(
    lines.map(({ source, status }) => source ?? status),
    ["web", "synthetic", "failed", "synthetic", "web", "web", "web", "web", "synthetic"],
  );
  const kept = lines.filter((line) => line.kept);
  assert.ok(kept.length > 0 && kept.length < lines.length - 1, `${kept.length} kept`);
  assert.deepEqual(await exported(chunk, outcome, true), kept);
});
