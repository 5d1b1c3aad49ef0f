// The results of an index job as an index file: vectors come from the objects that the chunks committed, in manifest order, so
// that the file is that of `blipfleet index` over the same images.

import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { StoreError } from "../jobs/errors.ts";
import { type AttemptResults, type ExportOptions, finishedItems } from "../jobs/results.ts";
import type { ObjectStore } from "../jobs/store.ts";
import type { ItemResult } from "../messages/item-result.ts";
import type { Committed, ManifestItem, ModelIdentity } from "../messages/job.ts";
import { expectModel, expectType, type ImageIndex, openImageIndex } from "../search/vector-file.ts";
import type { IndexModel } from "../search/vector-file-format.ts";
import type { WhenCoded } from "../search/vector-file-writer.ts";
import { activationType } from "../stages.ts";
import { type IndexCounts, IndexUpdate, type Looked, storedType } from "./indexing-update.ts";

export interface IndexExport extends ExportOptions {
  readonly file: string;
  readonly model: ModelIdentity;
  readonly vectors: "full" | "int8" | undefined;
  readonly codes: WhenCoded;
}

/**
 * Put the images of a job into an index, beside those that it has. What a run that was killed had written is taken over.
 * @throws IncompleteJobError, StoreError, ImageIndexError
 */
export async function exportIndex(attempts: readonly AttemptResults[], options: IndexExport): Promise<IndexCounts> {
  const { file, codes } = options;
  const old = await openImageIndex(file);
  const model = await modelOf(attempts, options, old);
  if (old !== null) expectModel(old, model);
  const type = storedType(old, model, options.vectors);
  if (old !== null) expectType(old, type);
  const update = await IndexUpdate.begin(file, old, model, { type, codes });
  let failed = 0;
  try {
    const objects = new Objects();
    for await (const { item, line, store } of finishedItems(attempts, options)) {
      const looked = await lookedAt(item, line.result, store, objects, update, model);
      if ("error" in (await update.take(looked))) failed += 1;
    }
  } catch (error) {
    await update.leave();
    throw error;
  }
  return { ...(await update.end()), failed };
}

/** Whose vectors the job made; their shape is in its results, or in the index that has them all. */
async function modelOf(
  attempts: readonly AttemptResults[],
  { model: { ref, digest, dtype, settings }, ...options }: IndexExport,
  old: ImageIndex | null,
): Promise<IndexModel> {
  const identity = { ref: existsSync(ref) ? resolve(ref) : ref, digest, dtype, ...(settings && { settings }) };
  for await (const { line } of finishedItems(attempts, options)) {
    const at = "vectors" in line.result ? line.result.vectors.at : null;
    if (at !== null) return { ...identity, queries: at.shape[0], width: at.shape[1] };
  }
  if (old !== null) return { ...identity, queries: old.model.queries, width: old.model.width };
  throw new StoreError(
    `export: expected vectors of at least one image, got none and no index at ${options.file}; name the index that the job knew`,
  );
}

async function lookedAt(
  { image, uri }: ManifestItem,
  result: ItemResult,
  store: ObjectStore,
  objects: Objects,
  update: IndexUpdate,
  { queries, width, dtype }: IndexModel,
): Promise<Looked> {
  if (result.status === "failed")
    return { image, error: Object.assign(new Error(result.error.message), { name: result.error.type }) };
  if (!("vectors" in result)) throw new StoreError(`export: expected vectors of ${image}, got another kind of result`);
  const { digest, at } = result.vectors;
  const path = fileURLToPath(uri);
  if (update.has(digest)) return { image, path, digest, vectors: null };
  if (at === null) {
    throw new StoreError(
      `export: expected ${image} in the index as it was when the job ran, got an index without it; name that index, or run the job anew`,
    );
  }
  const bytes = await objects.read(store, at.object);
  const type = activationType(dtype);
  const size = queries * width * (type === "f32" ? 4 : 2);
  const row = bytes.subarray(at.row * size, (at.row + 1) * size);
  if (row.length !== size || at.shape[0] !== queries || at.shape[1] !== width) {
    throw new StoreError(`export: expected (${queries}, ${width}) vectors of ${image}, got ${row.length} bytes`);
  }
  return { image, path, digest, vectors: update.stored({ type, shape: at.shape, bytes: row }) };
}

/** Committed objects, the newest in memory: consecutive items are in the same one. */
class Objects {
  #last: { readonly sha256: string; readonly bytes: Buffer } | undefined;

  async read(store: ObjectStore, { name, sha256 }: Committed): Promise<Buffer> {
    if (this.#last?.sha256 !== sha256) this.#last = { sha256, bytes: await store.read(name, sha256) };
    return this.#last.bytes;
  }
}
