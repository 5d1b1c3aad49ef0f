import assert from "node:assert/strict";
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { ManifestError, StoreError } from "../../src/jobs/errors.ts";
import { commitManifest, manifestItems, planManifest, readManifest } from "../../src/jobs/manifest.ts";
import { rootCheck } from "../../src/jobs/roots.ts";
import { folderStore } from "../../src/jobs/store.ts";
import type { ManifestItem } from "../../src/messages/job.ts";
import { collect, temporaryFolder } from "./temporary-folder.ts";

const root = temporaryFolder();
const data = join(root, "data");
mkdirSync(data);
const options = { roots: rootCheck([data]), shardSize: 10 };

function list(name: string, count: number): string {
  const path = join(data, name);
  writeFileSync(path, Array.from({ length: count }, (_, i) => `{"id":"i${i}","image":"${i}.jpg"}\n`).join(""));
  return path;
}

async function* items(count: number, from = 0): AsyncGenerator<ManifestItem> {
  for (let index = from; index < count; index += 1) {
    yield { index, id: `i${index}`, image: `${index}.jpg`, uri: `file:///${index}.jpg`, prompt: null };
  }
}

test("an input becomes shards and one index; any range of it can be read", async () => {
  const store = folderStore(join(root, "plan"));
  const manifest = await planManifest(store, list("a.jsonl", 25), options);
  assert.deepEqual({ items: manifest.items, shardSize: manifest.shardSize }, { items: 25, shardSize: 10 });
  const names = (await store.list()).map((name) => name.replace(/[0-9a-f]{12}/, "<attempt>"));
  const shards = ["00000", "00001", "00002"].map((number) => `manifest/<attempt>/${number}.jsonl`);
  assert.deepEqual(names, ["manifest.json", ...shards]);
  const all = await collect(manifestItems(store, manifest));
  assert.deepEqual(
    all.map(({ index, id }) => `${index} ${id}`),
    Array.from({ length: 25 }, (_, i) => `${i} i${i}`),
  );
  for (const [first, count] of [
    [0, 25],
    [0, 10],
    [9, 2],
    [10, 10],
    [3, 22],
    [24, 1],
    [20, 64],
    [25, 5],
    [7, 0],
  ] as const) {
    assert.deepEqual(
      await readManifest(store, manifest, first, count),
      all.slice(first, first + count),
      `${first} +${count}`,
    );
  }
});

test("an input whose items fill the last shard has no empty one", async () => {
  const store = folderStore(join(root, "full"));
  const manifest = await planManifest(store, list("b.jsonl", 20), options);
  assert.equal((await store.list("manifest/")).length, 2);
  assert.equal((await collect(manifestItems(store, manifest))).length, 20);
});

test("planning twice gives the first manifest, whatever the input is by then", async () => {
  const store = folderStore(join(root, "twice"));
  const source = list("c.jsonl", 15);
  const first = await planManifest(store, source, options);
  const objects = await store.list();
  appendFileSync(source, '{"id":"later","image":"x.jpg"}\n');
  assert.deepEqual(await planManifest(store, source, options), first);
  assert.deepEqual(await store.list(), objects, "the second attempt left nothing");
});

test("planners at the same moment agree on one whole manifest", async () => {
  const store = folderStore(join(root, "together"));
  const plans = await Promise.all(Array.from({ length: 8 }, (_, i) => commitManifest(store, items(12 + i), options)));
  assert.equal(new Set(plans.map((plan) => JSON.stringify(plan))).size, 1);
  const manifest = plans[0];
  assert.ok(manifest);
  assert.equal((await collect(manifestItems(store, manifest))).length, manifest.items);
  assert.equal((await store.list("manifest/")).length, 2, "only the winner's shards are left");
});

test("a bad input leaves nothing in the job's folder", async () => {
  const store = folderStore(join(root, "bad"));
  const source = list("d.jsonl", 35);
  appendFileSync(source, "not json\n");
  await assert.rejects(planManifest(store, source, options), (error: Error) => {
    assert.ok(error instanceof ManifestError);
    assert.match(error.message, /line 36: expected a JSON object/);
    return true;
  });
  assert.deepEqual(await store.list(), []);
  await assert.rejects(commitManifest(store, items(0), options), ManifestError);
  await assert.rejects(commitManifest(store, items(3, 1), options), /expected item 0, got item 1/);
  assert.deepEqual(await store.list(), []);
});

test("a lost, changed or swapped shard is found", async () => {
  const folder = join(root, "damaged");
  const store = folderStore(folder);
  const manifest = await commitManifest(store, items(30), options);
  const [first = "", second = ""] = await store.list("manifest/");
  const right = readFileSync(join(folder, second));
  writeFileSync(join(folder, second), right.toString().replace("i11", "i77"));
  await assert.rejects(
    readManifest(store, manifest, 15, 1),
    (error: Error) => error instanceof StoreError && /to have SHA-256/.test(error.message),
  );
  writeFileSync(join(folder, second), readFileSync(join(folder, first)));
  await assert.rejects(readManifest(store, manifest, 15, 1), StoreError);
  rmSync(join(folder, second));
  await assert.rejects(readManifest(store, manifest, 15, 1), /ENOENT/);
  assert.equal((await readManifest(store, manifest, 5, 1)).length, 1, "other shards are not touched");
  writeFileSync(join(folder, second), right);
  assert.equal((await readManifest(store, manifest, 15, 1))[0]?.id, "i15");
});
