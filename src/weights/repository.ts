// From a reference to a folder: a directory, or a repository of the Hugging Face hub in the cache that its own tools share.

import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import { CheckpointError } from "./errors.ts";
import { downloadSnapshot, isComplete } from "./hub-download.ts";

/** What happens to a checkpoint before and while it is loaded; for progress bars. */
export interface WeightsProgress {
  readonly phase: "download" | "hash" | "upload";
  /** The file or model that it is about. */
  readonly what: string;
  /** Bytes. */
  readonly done: number;
  readonly total: number;
}

export interface LocateOptions {
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly onProgress?: (progress: WeightsProgress) => void;
  /** Milliseconds before the second try of a broken download; doubles with every further one. Default 1000. */
  readonly retryMilliseconds?: number;
}

export interface HubReference {
  readonly id: string;
  /** A branch, tag or commit. */
  readonly revision: string;
}

const hubReference = /^([A-Za-z0-9][\w.-]*(?:\/[A-Za-z0-9][\w.-]*)?)(?:@([A-Za-z0-9][\w./-]*))?$/;

/** org/name[@revision], or null. */
export function parseHubReference(ref: string): HubReference | null {
  const [, id, revision = "main"] = hubReference.exec(ref) ?? [];
  if (id === undefined || `${id}@${revision}`.split(/[/@]/).some((part) => part === ".." || part === ".")) return null;
  return { id, revision };
}

/** Where the hub's own tools keep what they downloaded. */
export function hubCacheFolder(environment: LocateOptions["environment"] = process.env): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = environment;
  if (HF_HUB_CACHE) return HF_HUB_CACHE;
  if (HUGGINGFACE_HUB_CACHE) return HUGGINGFACE_HUB_CACHE;
  if (HF_HOME) return path.join(HF_HOME, "hub");
  return path.join(XDG_CACHE_HOME || path.join(homedir(), ".cache"), "huggingface", "hub");
}

export function isOffline(environment: LocateOptions["environment"] = process.env): boolean {
  return /^(1|true|yes|on)$/i.test(environment.HF_HUB_OFFLINE ?? "");
}

/**
 * The folder that holds a checkpoint. A directory is taken as it is, and a file is refused; a repository comes out of the cache as soon as a
 * whole snapshot of its revision is there, else it is downloaded into it.
 * @throws CheckpointError naming what was looked for and the next step; HubError
 */
export async function locateCheckpoint(ref: string, options: LocateOptions = {}): Promise<string> {
  const there = await stat(ref).catch(() => null);
  if (there?.isDirectory()) return path.resolve(ref);
  if (there !== null) {
    throw new CheckpointError(
      `${ref}: expected a directory in Hugging Face layout, got a file; name the directory that holds it`,
    );
  }
  const hub = parseHubReference(ref);
  if (hub === null) {
    throw new CheckpointError(
      `${ref}: expected a directory in Hugging Face layout or an id such as org/name, got neither`,
    );
  }
  const environment = options.environment ?? process.env;
  const repository = path.join(hubCacheFolder(environment), `models--${hub.id.replaceAll("/", "--")}`);
  const cached = await cachedSnapshot(repository, hub.revision);
  if (cached !== null && (await isComplete(cached))) return cached;
  if (isOffline(environment)) {
    throw new CheckpointError(
      `${ref}: expected ${cached === null ? "it" : "all of its files"} in ${repository} because HF_HUB_OFFLINE is set, got ` +
        `${cached === null ? "nothing" : "some"}; unset HF_HUB_OFFLINE to download it, or name a directory`,
    );
  }
  return downloadSnapshot(hub, repository, options);
}

/** The snapshot that the cache has of a revision, or null. */
async function cachedSnapshot(repository: string, revision: string): Promise<string | null> {
  const commit = await readFile(path.join(repository, "refs", revision), "utf8").catch(() => revision);
  const name = commit.trim();
  if (!/^[0-9a-f]{40}$/.test(name)) return null;
  const folder = path.join(repository, "snapshots", name);
  return (await isDirectory(folder)) ? folder : null;
}

async function isDirectory(folder: string): Promise<boolean> {
  try {
    return (await stat(folder)).isDirectory();
  } catch {
    return false;
  }
}
