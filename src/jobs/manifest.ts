// The manifest of a job: its items in order, in numbered shards, and one small index that names the shards.
//
//     manifest/<attempt>/00000.jsonl   items 0 … shardSize-1, one ManifestItem per line
//     manifest/<attempt>/00001.jsonl   …
//     manifest.json                    {version, items, shardSize, shards: [{name, sha256}]}
//
// Shards belong to one attempt at planning and the index is committed last, so a manifest is whole or not there, and two
// planners (one of them believed dead) can never mix their shards.

import { randomBytes } from "node:crypto";
import { z } from "zod";
import type { Committed, ManifestItem, ManifestRef } from "../messages/job.ts";
import { ManifestError, StoreError } from "./errors.ts";
import { type InputOptions, readInput } from "./inputs.ts";
import { commitJsonl, readJson, readJsonl } from "./jsonl.ts";
import type { ObjectStore } from "./store.ts";

export type { ManifestRef } from "../messages/job.ts";

export interface ManifestOptions {
  /** Items a shard. Default 5000, about 1 MB. */
  readonly shardSize?: number;
}

const committed = z.object({ name: z.string(), sha256: z.string() });

const indexSchema = z.object({
  version: z.literal(1),
  items: z.number().int().positive(),
  shardSize: z.number().int().positive(),
  shards: z.array(committed),
});

const itemSchema = z.object({
  index: z.number().int().nonnegative(),
  id: z.string(),
  image: z.string(),
  uri: z.string(),
  prompt: z.string().nullable(),
  texts: z.array(z.string()).exactOptional(),
});

/**
 * Turn an input (folder, text list, JSONL, CSV) into the manifest of the job whose folder `store` is. When the job has
 * one already, that one is returned.
 * @throws ManifestError, PathError as readInput(), with nothing left in the store
 */
export async function planManifest(
  store: ObjectStore,
  source: string,
  options: ManifestOptions & InputOptions = {},
): Promise<ManifestRef> {
  return commitManifest(store, readInput(source, options), options);
}

/** Commit items, which must be indexed from 0 in order, as the job's manifest. What was written is removed when `items` throws. */
export async function commitManifest(
  store: ObjectStore,
  items: AsyncIterable<ManifestItem>,
  { shardSize = 5000 }: ManifestOptions = {},
): Promise<ManifestRef> {
  const attempt = `manifest/${randomBytes(6).toString("hex")}`;
  const shards: Committed[] = [];
  let count = 0;
  let shard: ManifestItem[] = [];

  const flush = async () => {
    const name = `${attempt}/${String(shards.length).padStart(5, "0")}.jsonl`;
    shards.push(await commitJsonl(store, name, shard));
    shard = [];
  };

  try {
    for await (const item of items) {
      if (item.index !== count) throw new StoreError(`manifest: expected item ${count}, got item ${item.index}`);
      shard.push(item);
      count += 1;
      if (shard.length === shardSize) await flush();
    }
    if (shard.length > 0) await flush();
    if (count === 0) throw new ManifestError("manifest: expected at least one item, got none; the job would be empty");
  } catch (error) {
    await store.discard(attempt);
    throw error;
  }
  // From here on the shards may be the winner's, so an error leaves them alone.
  const text = `${JSON.stringify({ version: 1, items: count, shardSize, shards })}\n`;
  const index = await store.commit("manifest.json", Buffer.from(text, "utf8"));
  const winner = await readJson(store, index, indexSchema);
  if (winner.shards[0]?.name !== shards[0]?.name) await store.discard(attempt);
  return { items: winner.items, shardSize: winner.shardSize, index };
}

/**
 * Items first … first+count-1 (fewer at the end of the manifest), across shards where need be.
 * @throws StoreError when a shard is missing, was changed or holds other items.
 */
export async function readManifest(
  store: ObjectStore,
  manifest: ManifestRef,
  first: number,
  count: number,
): Promise<ManifestItem[]> {
  const { shards, shardSize } = await readJson(store, manifest.index, indexSchema);
  const end = Math.min(first + count, manifest.items);
  const items: ManifestItem[] = [];
  for (let number = Math.floor(first / shardSize); number * shardSize < end; number += 1) {
    const shard = await readShard(store, shards, shardSize, number);
    const start = number * shardSize;
    items.push(...shard.slice(Math.max(0, first - start), end - start));
  }
  return items;
}

/** All items in order, one shard in memory at a time. @throws StoreError */
export async function* manifestItems(store: ObjectStore, manifest: ManifestRef): AsyncGenerator<ManifestItem> {
  const { shards, shardSize } = await readJson(store, manifest.index, indexSchema);
  for (let number = 0; number < shards.length; number += 1) yield* await readShard(store, shards, shardSize, number);
}

async function readShard(
  store: ObjectStore,
  shards: readonly Committed[],
  shardSize: number,
  number: number,
): Promise<ManifestItem[]> {
  const shard = shards[number];
  if (shard === undefined) throw new StoreError(`manifest: expected shard ${number}, got ${shards.length} shards`);
  const items = await readJsonl(store, shard, itemSchema);
  if (items.some((item, i) => item.index !== number * shardSize + i)) {
    throw new StoreError(`manifest: expected ${shard.name} to hold the items from ${number * shardSize}, got others`);
  }
  return items;
}
