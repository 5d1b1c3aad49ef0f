// The results of an index job as an index: rows in manifest order, beside what the index has; nothing made up for what is gone.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { exportIndex, type IndexExport } from "../../src/cli/indexing-export.ts";
import { IncompleteJobError, StoreError } from "../../src/jobs/errors.ts";
import { commitManifest } from "../../src/jobs/manifest.ts";
import { type AttemptResults, commitResults, type ResultLine } from "../../src/jobs/results.ts";
import { folderStore } from "../../src/jobs/store.ts";
import type { ItemResult, VectorsAt } from "../../src/messages/item-result.ts";
import type { ManifestItem } from "../../src/messages/job.ts";
import { ImageIndexError } from "../../src/search/errors.ts";
import { openImageIndex } from "../../src/search/vector-file.ts";
import { temporaryFolder } from "../jobs/temporary-folder.ts";

const folder = temporaryFolder();
const model = { ref: "matcher", digest: "ab".repeat(32), dtype: "f32" } as const;
const digestOf = (image: number) => String(image).repeat(64);
const pathOf = (image: number) => join(folder, "images", `${image}.jpg`);
let jobs = 0;

/** (1, 2) unit vectors, another for each image. */
function vectorsOf(images: readonly number[]): Buffer {
  const values = images.flatMap((image) => [Math.cos(image), Math.sin(image)]);
  return Buffer.from(Float32Array.from(values).buffer);
}

type Outcome = "made" | "known" | "failed" | "missing";

/** A job over images, all vectors in one object in the order of `rows`. */
async function aJob(outcomes: Readonly<Record<number, Outcome>>, rows: readonly number[]): Promise<AttemptResults[]> {
  jobs += 1;
  const store = folderStore(join(folder, `job-${jobs}`));
  const images = Object.keys(outcomes).map(Number);
  const items = images.map((image, index): ManifestItem => {
    const name = `${image}.jpg`;
    return { index, id: name, image: name, uri: pathToFileURL(pathOf(image)).href, prompt: null };
  });
  async function* listed() {
    yield* items;
  }
  const manifest = await commitManifest(store, listed());
  const object = await store.commit("chunks/000000/compare.00000.0.bin", vectorsOf(rows));
  const lines = items.flatMap(({ index, id, image }): ResultLine[] => {
    const number = images[index] ?? -1;
    const outcome = outcomes[number];
    if (outcome === "missing") return [];
    const at: VectorsAt["at"] = outcome === "known" ? null : { object, row: rows.indexOf(number), shape: [1, 2] };
    const result: ItemResult =
      outcome === "failed"
        ? { id, image, status: "failed", error: { type: "ImageError", message: "no image" } }
        : { id, image, status: "done", vectors: { digest: digestOf(number), at } };
    return [{ index, result, maker: { adapter: "none", worker: "test" } }];
  });
  const result = await commitResults(store, "chunks/000000/compare.jsonl", lines);
  return [{ store, manifest, chunks: [{ chunk: 0, objects: [result] }] }];
}

const into = (file: string, more: Partial<IndexExport> = {}): IndexExport => ({
  ...{ file: join(folder, file), model, vectors: undefined, codes: "never" },
  ...more,
});

/** Digest, paths and vectors of every image, in order. */
async function contents(file: string) {
  const index = await openImageIndex(join(folder, file));
  assert.ok(index);
  const images = [...index.images];
  const values: number[] = [];
  for await (const block of index.blocks()) values.push(...block.values);
  return images.map(({ digest, images: paths }, i) => ({ digest, paths, vectors: values.slice(i * 2, i * 2 + 2) }));
}

const entry = (image: number) => ({
  digest: digestOf(image),
  paths: [pathOf(image)],
  vectors: [...new Float32Array(Uint8Array.from(vectorsOf([image])).buffer)],
});

test("rows become images in manifest order; failures are counted; a second job's images go before the first's", async () => {
  const first = await aJob({ 1: "made", 2: "failed", 3: "made" }, [3, 1]);
  const counts = await exportIndex(first, into("two.index"));
  assert.deepEqual(counts, { encoded: 2, kept: 0, recovered: 0, failed: 1, images: 2 });
  assert.deepEqual(await contents("two.index"), [entry(1), entry(3)]);

  const second = await aJob({ 3: "known", 4: "made" }, [4]);
  const more = await exportIndex(second, into("two.index"));
  assert.deepEqual([more.encoded, more.kept, more.images], [1, 1, 3]);
  assert.deepEqual(await contents("two.index"), [entry(4), entry(1), entry(3)]);
  // Again: nothing new.
  assert.deepEqual((await exportIndex(second, into("two.index"))).encoded, 0);
});

test("an image that the index had when the job ran, and has no more, is no image without vectors but an error", async () => {
  const job = await aJob({ 1: "made", 2: "known" }, [1]);
  await assert.rejects(exportIndex(job, into("gone.index")), (error) => {
    assert.ok(error instanceof StoreError);
    assert.match(error.message, /expected 2\.jpg in the index as it was when the job ran, got an index without it/);
    return true;
  });
  assert.equal(await openImageIndex(join(folder, "gone.index")), null);
  await assert.rejects(exportIndex(await aJob({ 2: "known" }, [1]), into("gone.index")), StoreError);
});

test("items without results are refused, or left out when asked to", async () => {
  const job = await aJob({ 1: "made", 2: "missing" }, [1]);
  await assert.rejects(exportIndex(job, into("part.index")), IncompleteJobError);
  assert.equal((await exportIndex(job, into("part.index", { partial: true }))).images, 1);
});

test("vectors as asked for or as the index has them; an index of another model is refused", async () => {
  const job = await aJob({ 1: "made" }, [1]);
  await exportIndex(job, into("int8.index", { vectors: "int8" }));
  const type = async (file: string) => (await openImageIndex(join(folder, file)))?.stored.type;
  assert.equal(await type("int8.index"), "int8");
  await exportIndex(await aJob({ 2: "made" }, [2]), into("int8.index"));
  assert.equal(await type("int8.index"), "int8");
  assert.equal((await contents("int8.index")).length, 2);
  const other = { ...model, digest: "cd".repeat(32) };
  await assert.rejects(exportIndex(job, into("int8.index", { model: other })), ImageIndexError);
});
