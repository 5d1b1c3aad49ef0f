// Somebody who waits is served first: answers stay quick while a batch job fills every slot of the only worker.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { cacheFolder } from "../../src/jobs/roots.ts";
import { checkModel } from "../../src/models/model-card.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { connectJobs, type JobClient } from "../../src/workers/job-client.ts";
import { Fleet } from "./fleet.ts";
import { writeManifest, writePictures } from "./pictures.ts";

const ref = join(packageRoot, "test", "fixtures", "models", "blip2-opt-tiny");
const answers = 20;
/** Milliseconds; the most that one submit may take on a slow driver, see ARCHITECTURE.md. */
const oneSubmit = 250;

let images: string;
let paths: string[];
let fleet: Fleet;
let jobs: JobClient;

before(async () => {
  images = await mkdtemp(join(tmpdir(), "blipfleet-images-"));
  paths = await writePictures(images, 600);
  fleet = await Fleet.open(images);
  jobs = await connectJobs(fleet.environment);
});

after(async () => {
  await jobs?.close();
  await fleet?.close();
  await rm(images, { recursive: true, force: true });
});

/** Milliseconds of 20 answers about images that nobody has encoded, one after the other, sorted. */
async function timeAnswers(name: string, chosen: readonly string[]): Promise<number[]> {
  const { card } = await checkModel(await openCheckpoint(ref), "f32", { cacheFolder: cacheFolder() });
  const times: number[] = [];
  for (const [i, path] of chosen.entries()) {
    const started = performance.now();
    const { text } = await jobs.answer(`${name}-${i}`, {
      image: pathToFileURL(path).href,
      question: "how many cats are there?",
      model: { ref, digest: card.digest, dtype: "f32" },
    });
    times.push(performance.now() - started);
    assert.equal(typeof text, "string");
  }
  return times.sort((a, b) => a - b);
}

/** The 95th percentile of sorted values. */
const p95 = (times: readonly number[]) => times[Math.ceil(times.length * 0.95) - 1] ?? Number.NaN;

test("an image given as bytes gets the answer of its file", async () => {
  const worker = await fleet.worker({ model: ref });
  const [path = ""] = paths;
  const { card } = await checkModel(await openCheckpoint(ref), "f32", { cacheFolder: cacheFolder() });
  const input = { model: { ref, digest: card.digest, dtype: "f32" }, prompt: "a photo of" } as const;
  const byFile = await jobs.answer("by-file", { ...input, image: pathToFileURL(path).href });
  const byBytes = await jobs.answer("by-bytes", { ...input, image: await readFile(path) });
  assert.deepEqual(byBytes.token_ids, byFile.token_ids);
  assert.match(byBytes.image, /_uploads/);
  await worker.stop();
});

test("the 95th percentile of answers under full load stays below three times the idle one and one submit", async () => {
  await fleet.worker({ model: ref });
  await timeAnswers("warm", paths.slice(-2 * answers - 5, -2 * answers));
  const idle = await timeAnswers("idle", paths.slice(-2 * answers, -answers));

  const manifest = await writeManifest(images, paths.slice(0, -2 * answers - 5), 10);
  const options = ["--model", ref, "--dtype", "f32", "--max-new-tokens", "40", "--min-new-tokens", "40"];
  await fleet.must(["job", "submit", manifest, "--id", "load", "--chunk-size", "64", "--window", "8", ...options]);
  await fleet.until("load", "to be under way", ({ done }) => done > 0);
  const busy = await timeAnswers("busy", paths.slice(-answers));
  const progress = await fleet.progress("load");
  process.stdout.write(`95th percentile: idle ${p95(idle).toFixed(0)} ms, busy ${p95(busy).toFixed(0)} ms\n`);
  assert.equal(progress?.state, "running", "expected the load to last longer than the answers");
  process.stdout.write(`95th percentile: idle ${p95(idle).toFixed(0)} ms, busy ${p95(busy).toFixed(0)} ms\n`);
  assert.ok(p95(busy) < 3 * p95(idle) + oneSubmit, `idle ${idle.map(Math.round)}; busy ${busy.map(Math.round)}`);
  await fleet.must(["job", "cancel", "load"]);
});
