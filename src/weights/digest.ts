// What a checkpoint is, as one number: equal files give equal digests on every machine, whichever part of them a worker
// loads. Hashing gigabytes takes seconds, so the hash of a file is remembered by path, size and time; threads hash large ones.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readFile, realpath, rename, stat, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import { z } from "zod";
import type { Checkpoint } from "./checkpoint.ts";
import { hashInThread } from "./hash-in-thread.ts";
import type { WeightsProgress } from "./repository.ts";

/** Beside the weights: the settings that can change an output. transformers does not ask generation_config.json either. */
const decidingFiles = [
  "config.json",
  "preprocessor_config.json",
  "processor_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "qformer_tokenizer/tokenizer.json",
  "qformer_tokenizer/tokenizer_config.json",
  "ice_text.model",
] as const;

export interface DigestOptions {
  /** Where hashes are remembered; left out: they are not. */
  readonly cacheFolder?: string;
  readonly onProgress?: (progress: WeightsProgress) => void;
  /** Ends the threads that hash. */
  readonly signal?: AbortSignal;
}

/** Bytes; a larger file is hashed by a thread of its own. */
const hashedHere = 16 * 1024 * 1024;
/** Threads at a time: one core makes 1.5 to 2 GB/s, about a quarter of what a disk gives. */
const mostThreads = 4;

/**
 * Hex SHA-256 over a line "<size> <sha256> <name>\n" for each file, sorted by name, after "blipfleet checkpoint 1\n".
 * Files are streamed; no more than a piece of one is in memory.
 */
export async function checkpointDigest(checkpoint: Checkpoint, options: DigestOptions = {}): Promise<string> {
  const { folder, weightFiles } = checkpoint;
  const sizes = new Map<string, number>();
  for (const name of [...decidingFiles, ...weightFiles]) {
    const found = await stat(path.join(folder, name)).catch(() => null);
    if (found?.isFile()) sizes.set(name, found.size);
  }
  const total = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  const names = [...sizes.keys()].sort();
  const doneOf = new Map<string, number>();
  const hashes = new Map<string, string>();
  const hashOne = async (name: string) => {
    const size = sizes.get(name) ?? 0;
    const file = path.join(folder, name);
    const sha256 = await rememberedHash(file, size, options, (done) => {
      doneOf.set(name, done);
      const all = [...doneOf.values()].reduce((sum, each) => sum + each, 0);
      options.onProgress?.({ phase: "hash", what: checkpoint.ref, done: all, total });
    });
    doneOf.set(name, size);
    hashes.set(name, sha256);
  };
  await eachOf(names, Math.max(1, Math.min(mostThreads, availableParallelism() - 1)), hashOne);
  const lines = names.map((name) => `${sizes.get(name)} ${hashes.get(name)} ${name}\n`);
  return createHash("sha256")
    .update(`blipfleet checkpoint 1\n${lines.join("")}`, "utf8")
    .digest("hex");
}

/** Work on all items, so many at a time, in order. */
async function eachOf<T>(items: readonly T[], most: number, work: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items];
  const one = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: most }, one));
}

/** A file's SHA-256, or the SHA-1 that git gives its content. Hex. */
export async function fileHash(
  file: string,
  kind: "sha256" | "git-blob",
  onBytes: (done: number) => void = () => {},
): Promise<string> {
  const hash = createHash(kind === "sha256" ? "sha256" : "sha1");
  if (kind === "git-blob") hash.update(`blob ${(await stat(file)).size}\0`);
  let done = 0;
  for await (const chunk of createReadStream(file, { highWaterMark: 1024 * 1024 })) {
    hash.update(chunk as Buffer);
    done += (chunk as Buffer).length;
    onBytes(done);
  }
  return hash.digest("hex");
}

const remembered = z.object({ path: z.string(), size: z.string(), mtime: z.string(), sha256: z.string().length(64) });

/** Milliseconds; a file changed again this soon may show the same time. */
const settled = 2000;

async function rememberedHash(
  file: string,
  bytes: number,
  options: DigestOptions,
  onBytes: (done: number) => void,
): Promise<string> {
  const hash = (path: string) =>
    bytes > hashedHere ? hashInThread(path, onBytes, options.signal) : fileHash(path, "sha256", onBytes);
  if (options.cacheFolder === undefined) return hash(file);
  const real = await realpath(file);
  const { size, mtimeNs, mtimeMs } = await stat(real, { bigint: true });
  const key = { path: real, size: String(size), mtime: String(mtimeNs) };
  const folder = path.join(options.cacheFolder, "file-hashes");
  const note = path.join(folder, `${createHash("sha256").update(real).digest("hex")}.json`);
  const known = remembered.safeParse(
    await readFile(note, "utf8")
      .then((text): unknown => JSON.parse(text))
      .catch(() => null),
  );
  if (known.success && known.data.path === key.path && known.data.size === key.size && known.data.mtime === key.mtime) {
    return known.data.sha256;
  }
  const sha256 = await hash(real);
  const after = await stat(real, { bigint: true });
  const steady = after.mtimeNs === mtimeNs && after.size === size && Date.now() - Number(mtimeMs) > settled;
  if (steady) {
    await mkdir(folder, { recursive: true });
    const draft = `${note}.${process.pid}.${Math.random().toString(36).slice(2)}`;
    await writeFile(draft, JSON.stringify({ ...key, sha256 }));
    await rename(draft, note);
  }
  return sha256;
}
