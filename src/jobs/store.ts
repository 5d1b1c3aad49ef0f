// The objects of one job, by URI. An object is written once: the first writer wins and everybody else learns its digest.
//
// A worker that slept through its time-out and wakes up can therefore change nothing: what it commits late loses, and
// what counts is the digest that went into the workflow's history.

import { createHash, randomBytes } from "node:crypto";
import { link, mkdir, open, readdir, readFile, rm, rmdir, unlink } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { pathToFileURL } from "node:url";
import type { Committed } from "../messages/job.ts";
import { errorCode, PathError, StoreError } from "./errors.ts";
import { toPath } from "./roots.ts";

export interface ObjectStore {
  /** URI of the folder that the names are in. */
  readonly uri: string;
  /**
   * Write an object unless there is one. Returns the digest of the bytes that are there now, ours or the winner's.
   * Once it returns, the bytes have been synced to the disk.
   * @throws StoreError when the folder cannot be written.
   */
  commit(name: string, bytes: Uint8Array): Promise<Committed>;
  /**
   * The bytes of an object, which must have this digest (hex SHA-256).
   * @throws StoreError when it is missing or its bytes are others.
   */
  read(name: string, sha256: string): Promise<Buffer>;
  /** An object that somebody has committed, with its digest, or null. */
  find(name: string): Promise<Committed | null>;
  /** Names of all objects that start with `prefix`, sorted by code units. Objects half written are not among them. */
  list(prefix?: string): Promise<string[]>;
  /** Delete every object whose name starts with `folder` and a slash. Only for objects that no history names. */
  discard(folder: string): Promise<void>;
  /** Remove the store's folder if there is nothing in it. */
  leave(): Promise<void>;
  /**
   * Write, link and read a small object and delete it again, to find a bad mount at submit and not hours later.
   * @throws StoreError with what failed.
   */
  probe(): Promise<void>;
}

/**
 * The store at a URI: `file:` (a folder, made when it is first written; on a fleet a mount that all workers share).
 * @throws PathError for other schemes.
 */
export function openStore(uri: string): ObjectStore {
  if (!/^file:/i.test(uri)) {
    const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(uri)?.[1];
    const next = scheme === undefined ? "write it as file:///…" : `${scheme}: comes later`;
    throw new PathError(`store: expected a file: URI, got ${JSON.stringify(uri)}; ${next}`);
  }
  return folderStore(toPath(uri, "/"));
}

/** Hex SHA-256. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Files being written carry this ending; nothing that is committed does. */
const temporary = /\.[0-9a-f]{16}\.tmp$/;

/** A store over a folder of a file system with hard links. */
export function folderStore(folder: string): ObjectStore {
  const place = (name: string) => join(folder, expectName(name));

  const writeTemporary = async (target: string, bytes: Uint8Array): Promise<string> => {
    await mkdir(dirname(target), { recursive: true });
    const path = `${target}.${randomBytes(8).toString("hex")}.tmp`;
    const file = await open(path, "wx");
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    return path;
  };

  return {
    uri: pathToFileURL(folder).href,

    async commit(name, bytes) {
      const target = place(name);
      let draft: string | undefined;
      try {
        draft = await writeTemporary(target, bytes);
        await link(draft, target);
        await syncFolder(dirname(target));
        return { name, sha256: sha256(bytes) };
      } catch (error) {
        if (errorCode(error) === "EEXIST") return { name, sha256: sha256(await readFile(target)) };
        throw new StoreError(
          `store: expected to commit ${name} in ${folder}, got ${errorCode(error) ?? String(error)}${hint(error)}`,
          { cause: error },
        );
      } finally {
        if (draft !== undefined) await unlink(draft).catch(() => undefined);
      }
    },

    async read(name, expected) {
      let bytes: Buffer;
      try {
        bytes = await readFile(place(name));
      } catch (error) {
        throw new StoreError(
          `store: expected object ${name} in ${folder}, got ${errorCode(error) ?? String(error)}${hint(error)}`,
          { cause: error },
        );
      }
      const actual = sha256(bytes);
      if (actual !== expected) {
        throw new StoreError(
          `store: expected ${name} in ${folder} to have SHA-256 ${expected}, got ${actual}; it was changed after it was committed`,
        );
      }
      return bytes;
    },

    async find(name) {
      try {
        return { name, sha256: sha256(await readFile(place(name))) };
      } catch (error) {
        if (errorCode(error) === "ENOENT") return null;
        throw new StoreError(`store: expected to look for ${name} in ${folder}, got ${errorCode(error)}`, {
          cause: error,
        });
      }
    },

    async list(prefix = "") {
      const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((error: unknown) => {
        if (errorCode(error) === "ENOENT") return [];
        throw new StoreError(`store: expected to list ${folder}, got ${errorCode(error)}`, { cause: error });
      });
      return (
        entries
          .filter((entry) => entry.isFile() && !temporary.test(entry.name))
          // Node before 20.12 has the older name only.
          .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)).replaceAll(sep, "/"))
          .filter((name) => name.startsWith(prefix))
          .sort(byCodeUnits)
      );
    },

    async discard(name) {
      await rm(place(name), { recursive: true, force: true });
    },

    async leave() {
      await rmdir(folder).catch((error: unknown) => {
        if (!["ENOENT", "ENOTEMPTY", "EEXIST"].includes(errorCode(error) ?? "")) throw error;
      });
    },

    async probe() {
      const name = `probe-${randomBytes(8).toString("hex")}`;
      const bytes = randomBytes(64);
      const first = await this.commit(name, bytes);
      const second = await this.commit(name, randomBytes(64));
      const back = await this.read(name, first.sha256);
      await unlink(place(name));
      if (second.sha256 !== first.sha256 || !back.equals(bytes)) {
        throw new StoreError(
          `store: expected ${folder} to keep the first of two writers, got the second; use another mount`,
        );
      }
    },
  };
}

/** Order of UTF-16 code units: the same on every machine and in every locale. */
export function byCodeUnits(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function expectName(name: string): string {
  const segments = name.split("/");
  const isGood = segments.every((segment) => /^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(segment)) && !temporary.test(name);
  if (isGood && name.length <= 500) return name;
  throw new StoreError(
    `store: expected an object name of letters, digits, ".", "_", "-" and "/", got ${JSON.stringify(name)}`,
  );
}

/** The new name itself must survive a power cut; some network mounts refuse to sync a folder and are left alone. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } catch (error) {
    if (!["EINVAL", "ENOTSUP", "EPERM"].includes(errorCode(error) ?? "")) throw error;
  } finally {
    await handle.close();
  }
}

function hint(error: unknown): string {
  switch (errorCode(error)) {
    case "EPERM":
    case "ENOTSUP":
    case "EOPNOTSUPP":
      return "; the file system must allow hard links";
    case "EACCES":
    case "EROFS":
      return "; make the folder writable for this user (BLIPFLEET_JOBS)";
    case "ENOSPC":
      return "; free some space";
    default:
      return "";
  }
}
