// A job over a worker that runs its model at another image size and as LAVIS has it: the answers of the same command here, queues
// and prompts of their own beside a worker that runs the checkpoint as it is.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { Fleet, runCommand } from "./fleet.ts";
import { writePictures } from "./pictures.ts";

const model = join(packageRoot, "test", "fixtures", "blip", "blip-vqa-tiny");
const question = "How many CATS are there?";
const asked = ["--model", model, "--dtype", "f32", "--max-new-tokens", "8"];
const settings = ["--image-size", "20", "--behaviour", "lavis"];
let images: string;
let paths: string[];
let fleet: Fleet;

before(async () => {
  images = await mkdtemp(join(tmpdir(), "blipfleet-images-"));
  paths = await writePictures(images, 5);
  fleet = await Fleet.open(images);
});

after(async () => {
  await fleet?.close();
  await rm(images, { recursive: true, force: true });
});

/** Token ids by file. */
async function byJob(id: string, more: readonly string[]): Promise<Record<string, unknown>> {
  await fleet.must([
    "job",
    "submit",
    images,
    "--task",
    "ask",
    "--prompt",
    question,
    "--id",
    id,
    "--watch",
    ...asked,
    ...more,
  ]);
  const lines = (await fleet.must(["job", "export", id]))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  return Object.fromEntries(lines.map(({ image, token_ids }) => [image, token_ids]));
}

async function here(more: readonly string[]): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  for (const path of paths) {
    const ran = await runCommand(["ask", path, question, ...asked, ...more, "--format", "jsonl"], fleet.environment);
    assert.equal(ran.status, 0, ran.stderr);
    found[basename(path)] = JSON.parse(ran.stdout).token_ids;
  }
  return found;
}

test("jobs with and without settings, each by its own worker, answer as the commands do", async () => {
  await fleet.worker({ model, dtype: "f32" });
  await fleet.worker({ model, dtype: "f32", args: settings });
  const [plain, set] = [await byJob("plain", []), await byJob("set", settings)];
  assert.deepEqual(plain, await here([]));
  assert.deepEqual(set, await here(settings));
  assert.notDeepEqual(plain, set, "the settings show");
});
