// Downloading a snapshot of a hub repository into the cache layout of the hub's own tools:
//
//     models--org--name/blobs/<etag>                  the bytes, once
//     models--org--name/snapshots/<commit>/<file>     links to them
//     models--org--name/refs/<revision>               the commit that the revision meant
//
// A download goes to blobs/<etag>.<pid>.incomplete; one that a process left behind is taken over by renaming it.

import { mkdir, open, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { fileHash } from "./digest.ts";
import { CheckpointError, HubError } from "./errors.ts";
import type { HubReference, LocateOptions } from "./repository.ts";
import { indexFile, isShardName, singleFile, weightMap } from "./weight-files.ts";

/** Files beside the weights; all that a repository has of them are fetched. */
export const settingsFiles = [
  "config.json",
  "preprocessor_config.json",
  "processor_config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  // The Q-Former's own tokenizer, where it reads an instruction.
  "qformer_tokenizer/tokenizer.json",
  "qformer_tokenizer/tokenizer_config.json",
  "ice_text.model",
] as const;

const defaultEndpoint = "https://huggingface.co";
/** Tries of one file; every try goes on where the last one ended. */
const tries = 5;
/** Milliseconds without a byte before a try is given up. */
const stallLimit = 60_000;

const repositoryInfo = z.object({
  sha: z.string().regex(/^[0-9a-f]{40}$/),
  siblings: z.array(
    z.object({
      rfilename: z.string(),
      size: z.number().int().nonnegative().optional(),
      blobId: z
        .string()
        .regex(/^[0-9a-f]{40,64}$/)
        .optional(),
      lfs: z.object({ sha256: z.string().regex(/^[0-9a-f]{64}$/), size: z.number().int().nonnegative() }).optional(),
    }),
  ),
});

interface RemoteFile {
  readonly name: string;
  readonly bytes: number;
  /** SHA-256 of the content, or for small files git's SHA-1 of "blob <size>\0" and the content. */
  readonly etag: string;
}

/** Of these, what models do not do without: one list or another. */
const neededFiles = [
  ["config.json", "preprocessor_config.json", "tokenizer.json"],
  ["config.json", "ice_text.model"],
] as const;

/** Whether a snapshot folder has the settings and all weight files. What the files say is not looked at. */
export async function isComplete(folder: string): Promise<boolean> {
  const has = async (name: string) => (await stat(path.join(folder, name)).catch(() => null))?.isFile() ?? false;
  const hasAll = async (names: Iterable<string>) => (await Promise.all([...names].map(has))).every(Boolean);
  if (!(await Promise.all(neededFiles.map(hasAll))).some(Boolean)) return false;
  if (await has(singleFile)) return true;
  if (!(await has(indexFile))) return false;
  try {
    const places = weightMap(folder, JSON.parse(await readFile(path.join(folder, indexFile), "utf8")));
    return hasAll(new Set(places.values()));
  } catch {
    return true; // who opens the checkpoint is told what is wrong with its index
  }
}

/**
 * Fetch what a model needs of a repository.
 * @param repository folder models--org--name of the cache
 * @returns the snapshot's folder
 * @throws CheckpointError: unknown, gated, without safetensors; HubError: anything that another try may cure
 */
export async function downloadSnapshot(
  { id, revision }: HubReference,
  repository: string,
  options: LocateOptions,
): Promise<string> {
  const hub = new Hub(id, revision, options);
  const { commit, files } = await hub.list();
  const snapshot = path.join(repository, "snapshots", commit);
  const blobs = path.join(repository, "blobs");
  await mkdir(blobs, { recursive: true });
  await mkdir(snapshot, { recursive: true });
  const fetchFile = async (name: string) => {
    const file = files.get(name);
    if (file === undefined) throw new CheckpointError(`${id}@${revision}: expected ${name}, got no such file`);
    const blob = path.join(blobs, file.etag);
    if ((await sizeOf(blob)) !== file.bytes) await hub.download(commit, file, blob);
    const link = path.join(snapshot, name);
    await mkdir(path.dirname(link), { recursive: true });
    await rm(link, { force: true });
    await symlink(path.relative(path.dirname(link), blob), link);
  };
  if (!files.has("config.json")) {
    throw new CheckpointError(`${id}@${revision}: expected a model repository, got one without config.json`);
  }
  if (!files.has(singleFile) && !files.has(indexFile)) {
    throw new CheckpointError(
      `${id}@${revision}: expected ${singleFile} or ${indexFile}, got neither; a revision with converted weights may be ` +
        "there: name it as org/name@revision",
    );
  }
  for (const name of settingsFiles) if (files.has(name)) await fetchFile(name);
  if (files.has(singleFile)) {
    await fetchFile(singleFile);
  } else {
    await fetchFile(indexFile);
    const places = weightMap(id, JSON.parse(await readFile(path.join(snapshot, indexFile), "utf8")));
    for (const shard of [...new Set(places.values())].filter(isShardName).sort()) await fetchFile(shard);
  }
  const ref = path.join(repository, "refs", revision);
  await mkdir(path.dirname(ref), { recursive: true });
  await writeFile(ref, commit);
  return snapshot;
}

/** One revision of one repository of the hub. */
class Hub {
  readonly #id: string;
  readonly #revision: string;
  readonly #endpoint: string;
  readonly #options: LocateOptions;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(id: string, revision: string, options: LocateOptions) {
    const environment = options.environment ?? process.env;
    this.#id = id;
    this.#revision = revision;
    this.#options = options;
    this.#endpoint = (environment.HF_ENDPOINT || defaultEndpoint).replace(/\/+$/, "");
    this.#headers = environment.HF_TOKEN ? { authorization: `Bearer ${environment.HF_TOKEN}` } : {};
  }

  /** The commit that the revision means, and its files. */
  async list(): Promise<{ commit: string; files: Map<string, RemoteFile> }> {
    const url = `${this.#endpoint}/api/models/${this.#id}/revision/${encodeURIComponent(this.#revision)}?blobs=true`;
    const response = await this.#fetch(url, AbortSignal.timeout(stallLimit));
    const read = repositoryInfo.safeParse(await response.json().catch(() => null));
    if (!read.success) throw new HubError(`${url}: expected a list of files, got ${z.prettifyError(read.error)}`);
    const files = new Map<string, RemoteFile>();
    for (const { rfilename: name, size, blobId, lfs } of read.data.siblings) {
      const etag = lfs?.sha256 ?? blobId;
      const bytes = lfs?.size ?? size;
      if (etag !== undefined && bytes !== undefined) files.set(name, { name, bytes, etag });
    }
    return { commit: read.data.sha, files };
  }

  /** Fetch one file to `blob`, checked. */
  async download(commit: string, file: RemoteFile, blob: string): Promise<void> {
    const part = await takePart(blob);
    let wait = this.#options.retryMilliseconds ?? 1000;
    for (let left = tries; ; left--) {
      try {
        await this.#receive(commit, file, part);
        break;
      } catch (cause) {
        if (cause instanceof CheckpointError) throw cause;
        if (left === 1) {
          throw new HubError(
            `${this.#id}: expected ${file.bytes} bytes of ${file.name}, got ${(await sizeOf(part)) ?? 0} after ${tries} tries ` +
              `(${cause instanceof Error ? cause.message : cause}); the next run goes on from there`,
            { cause },
          );
        }
        await sleep(wait);
        wait *= 2;
      }
    }
    const hash = await fileHash(part, file.etag.length === 64 ? "sha256" : "git-blob");
    if (hash !== file.etag) {
      await rm(part);
      throw new HubError(`${this.#id}: expected ${file.name} to have the hash ${file.etag}, got ${hash}; try again`);
    }
    await rename(part, blob);
  }

  /** Append to `part` what is missing of the file. */
  async #receive(commit: string, file: RemoteFile, part: string): Promise<void> {
    let start = (await sizeOf(part)) ?? 0;
    if (start > file.bytes) start = 0;
    if (start === file.bytes && start > 0) return;
    const stalled = new AbortController();
    const watch = setTimeout(() => stalled.abort(new HubError(`${file.name}: no bytes for a minute`)), stallLimit);
    const url = `${this.#endpoint}/${this.#id}/resolve/${commit}/${file.name.split("/").map(encodeURIComponent).join("/")}`;
    const handle = await open(part, start > 0 ? "r+" : "w");
    try {
      const response = await this.#fetch(url, stalled.signal, start > 0 ? { range: `bytes=${start}-` } : {});
      // A server that does not know ranges sends the whole file.
      let at = response.status === 206 ? start : 0;
      await handle.truncate(at);
      for await (const chunk of response.body ?? []) {
        watch.refresh();
        if (at + chunk.length > file.bytes) {
          await handle.truncate(0);
          throw new HubError(`${file.name}: expected ${file.bytes} bytes, got more`);
        }
        await handle.write(chunk, 0, chunk.length, at);
        at += chunk.length;
        this.#options.onProgress?.({ phase: "download", what: file.name, done: at, total: file.bytes });
      }
      if (at < file.bytes) throw new HubError(`${file.name}: expected ${file.bytes} bytes, got ${at}`);
    } finally {
      clearTimeout(watch);
      await handle.close();
    }
  }

  async #fetch(url: string, signal: AbortSignal, headers: Record<string, string> = {}): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(url, { headers: { ...this.#headers, ...headers }, signal });
    } catch (cause) {
      const why = cause instanceof Error && cause.cause instanceof Error ? cause.cause.message : String(cause);
      throw new HubError(
        `${this.#id}: expected ${this.#endpoint} to answer, got ${why}; download the model elsewhere and name its directory`,
        { cause },
      );
    }
    if (response.ok) return response;
    await response.body?.cancel();
    const { status } = response;
    const code = response.headers.get("x-error-code") ?? "";
    const where = `${this.#id}@${this.#revision}`;
    if (code === "RevisionNotFound" || code === "EntryNotFound") {
      throw new CheckpointError(
        `${where}: expected this revision of the repository, got ${code} from ${this.#endpoint}`,
      );
    }
    if (code === "GatedRepo" || status === 403) {
      throw new CheckpointError(
        `${where}: expected access, got ${status}: it is gated; accept its terms at ${this.#endpoint}/${this.#id} and set HF_TOKEN`,
      );
    }
    if (status === 401 || status === 404) {
      throw new CheckpointError(
        `${where}: expected a repository that can be read, got ${status} from ${this.#endpoint}: check the id, and set HF_TOKEN ` +
          "if it is private; a directory must exist to be taken as one",
      );
    }
    throw new HubError(`${url}: expected status 200, got ${status}`);
  }
}

/** The size of a file; undefined when there is none. */
async function sizeOf(file: string): Promise<number | undefined> {
  return (await stat(file).catch(() => null))?.size;
}

/** Our own name for a part of `blob`, and with it what a process that has ended left behind. */
async function takePart(blob: string): Promise<string> {
  const own = `${blob}.${process.pid}.incomplete`;
  const start = `${path.basename(blob)}.`;
  for (const name of await readdir(path.dirname(blob))) {
    const [, pid] = name.startsWith(start) ? (/^(\d+)\.incomplete$/.exec(name.slice(start.length)) ?? []) : [];
    if (pid === undefined || Number(pid) === process.pid || isAlive(Number(pid))) continue;
    // Whoever renames it first has it.
    await rename(path.join(path.dirname(blob), name), own).catch(() => {});
  }
  return own;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}
