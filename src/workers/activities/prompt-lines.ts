// What encode and query commit: one line per item about where its activations are.

import { z } from "zod";
import { commitJsonl, readJsonl } from "../../jobs/jsonl.ts";
import { readManifest } from "../../jobs/manifest.ts";
import { stageObjectName } from "../../jobs/results.ts";
import { type ObjectStore, openStore } from "../../jobs/store.ts";
import type { ChunkIdentity, Committed, ManifestItem, Missing, PromptLine } from "../../messages/job.ts";

const reason = z.enum(["absent", "damaged"]);

const lineSchema: z.ZodType<PromptLine> = z.union([
  z.object({ position: z.number().int(), error: z.object({ type: z.string(), message: z.string() }) }),
  z.object({
    position: z.number().int(),
    prompt: z.string(),
    features: z.string().exactOptional(),
    image: z.string().exactOptional(),
    missing: reason.exactOptional(),
  }),
]);

/** An item and its place in the chunk. */
export interface Placed {
  readonly position: number;
  readonly item: ManifestItem;
  /** What is in the prompt store for it is damaged: publish over it. */
  readonly overwrite: boolean;
}

/** The items that a round is about: all of the chunk, or those that were missing. */
export async function itemsOfRound(chunk: ChunkIdentity, missing: Missing | null): Promise<Placed[]> {
  const items = await readManifest(openStore(chunk.folder), chunk.manifest, chunk.first, chunk.count);
  const damaged = new Set(missing?.damaged ?? []);
  const wanted = missing === null ? null : new Set([...missing.absent, ...missing.damaged]);
  return items
    .map((item, position) => ({ position, item, overwrite: damaged.has(position) }))
    .filter(({ position }) => wanted === null || wanted.has(position));
}

/** Commit the lines of one stage and round, in order of position. The first round's object has no number. */
export async function commitPromptLines(
  chunk: ChunkIdentity,
  stage: "encode" | "query" | "features",
  round: number,
  lines: readonly PromptLine[],
): Promise<Committed> {
  const name = stageObjectName(chunk.chunk, stage, round === 0 ? undefined : round);
  return commitJsonl(
    openStore(chunk.folder),
    name,
    [...lines].sort((a, b) => a.position - b.position),
  );
}

/** Lines by position; a later object's line replaces an earlier one's. */
export async function readPromptLines(
  store: ObjectStore,
  objects: readonly Committed[],
): Promise<Map<number, PromptLine>> {
  const lines = new Map<number, PromptLine>();
  for (const object of objects) {
    for (const line of await readJsonl(store, object, lineSchema)) lines.set(line.position, line);
  }
  return lines;
}
