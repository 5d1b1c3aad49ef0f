// One answer wherever it is made: in this process, by a fused worker, and by three workers with one stage each.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { connectNats } from "../../src/messages/connect.ts";
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
