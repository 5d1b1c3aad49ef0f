import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdir, readFile, truncate, utimes, writeFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { checkpointDigest, fileHash } from "../../src/weights/digest.ts";
import type { WeightsProgress } from "../../src/weights/repository.ts";
import { safetensors, temporaryFolder, writeFolder } from "./checkpoint-files.ts";

const folder = await temporaryFolder();
const files = {
  "config.json": '{"model_type":"x"}',
  "tokenizer.json": "{}",
  "model.safetensors": safetensors({ a: { shape: [5] } }),
};
const past = new Date("2026-01-01T00:00:00Z");

function sha256(content: Buffer | string): string {
  return createHash("sha256").update(content).digest("hex");
}

test("the digest is the SHA-256 of sizes, hashes and names in order", async () => {
  const checkpoint = await openCheckpoint(await writeFolder(folder, "plain", files));
  const lines = Object.entries(files)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, content]) => `${content.length} ${sha256(content)} ${name}\n`);
  assert.equal(await checkpointDigest(checkpoint), sha256(`blipfleet checkpoint 1\n${lines.join("")}`));
});

test("it depends on what can change an output and on nothing else", async () => {
  const digestOf = async (name: string, more: Record<string, Buffer | string>) =>
    checkpointDigest(await openCheckpoint(await writeFolder(folder, name, { ...files, ...more })));
  const first = await digestOf("one", {});
  assert.equal(await digestOf("elsewhere", {}), first, "the folder's name is no part of it");
  assert.equal(await digestOf("readme", { "README.md": "hello", "generation_config.json": "{}" }), first);
  const changes: Record<string, Buffer | string>[] = [
    { "config.json": '{"model_type":"y"}' },
    { "tokenizer.json": "{ }" },
    { "preprocessor_config.json": "{}" },
    { "qformer_tokenizer/tokenizer.json": "{}" },
    { "model.safetensors": safetensors({ a: { shape: [6] } }) },
  ];
  const others = await Promise.all(changes.map((change, i) => digestOf(`change-${i}`, change)));
  assert.equal(new Set([first, ...others]).size, changes.length + 1);
});

test("hashes are remembered by path, size and time, and progress is told", async () => {
  const cacheFolder = path.join(folder, "cache");
  const model = await writeFolder(folder, "remembered", files);
  for (const name of Object.keys(files)) await utimes(path.join(model, name), past, past);
  const checkpoint = await openCheckpoint(model);
  const told: WeightsProgress[] = [];
  const run = () => checkpointDigest(checkpoint, { cacheFolder, onProgress: (progress) => told.push(progress) });
  const first = await run();
  const total = Object.values(files).reduce((sum, content) => sum + content.length, 0);
  assert.deepEqual(told.at(-1), { phase: "hash", what: model, done: total, total });
  assert.equal((await readdir(path.join(cacheFolder, "file-hashes"))).length, 3);

  // Other bytes under the same size and time are not looked at: that is what remembering means.
  await writeFile(path.join(model, "tokenizer.json"), "[]");
  await utimes(path.join(model, "tokenizer.json"), past, past);
  told.length = 0;
  assert.equal(await run(), first);
  assert.deepEqual(told, [], "nothing was hashed");

  await utimes(path.join(model, "tokenizer.json"), past, new Date("2026-01-02T00:00:00Z"));
  assert.notEqual(await run(), first, "a new time is looked at");
});

test("a file that has just changed is not remembered", async () => {
  const cacheFolder = path.join(folder, "fresh-cache");
  const model = await writeFolder(folder, "fresh", files);
  const checkpoint = await openCheckpoint(model);
  const first = await checkpointDigest(checkpoint, { cacheFolder });
  await writeFile(path.join(model, "tokenizer.json"), "[]");
  assert.notEqual(await checkpointDigest(checkpoint, { cacheFolder }), first);
});

test("git's hash of a file", async () => {
  const file = path.join(folder, "hello");
  await writeFile(file, "hello\n");
  // git hash-object of "hello\n"
  assert.equal(await fileHash(file, "git-blob"), "ce013625030ba8dba906f756967f9e9ca394464a");
});

test("a large file is hashed by a thread of its own, to the same hash; an abort ends it", async () => {
  const model = await writeFolder(folder, "large", {
    ...files,
    "model.safetensors": safetensors({ a: { shape: [5] } }),
  });
  const checkpoint = await openCheckpoint(model);
  const file = path.join(model, "model.safetensors");
  const bytes = 70 * 1024 * 1024 + 3;
  await truncate(file, bytes);
  const told: WeightsProgress[] = [];
  const digest = await checkpointDigest(checkpoint, { onProgress: (progress) => told.push(progress) });
  const content = { ...files, "model.safetensors": await readFile(file) };
  const lines = Object.entries(content)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, each]) => `${each.length} ${sha256(each)} ${name}\n`);
  assert.equal(digest, sha256(`blipfleet checkpoint 1\n${lines.join("")}`));
  const total = Object.values(content).reduce((sum, each) => sum + each.length, 0);
  assert.deepEqual(told.at(-1), { phase: "hash", what: model, done: total, total });
  const counts = told.map(({ done }) => done);
  assert.deepEqual(
    counts,
    [...counts].sort((a, b) => a - b),
    "what is told only grows",
  );

  const stop = new AbortController();
  // Not before the thread is at work.
  const onProgress = ({ done }: WeightsProgress) => done > 1e6 && stop.abort(new Error("enough"));
  const stopped = checkpointDigest(checkpoint, { signal: stop.signal, onProgress });
  await assert.rejects(stopped, /enough/);
});
