// Where jobs may read and where they keep their files.
//
//     BLIPFLEET_ROOTS   folders below which jobs and `answer` may read images and lists; several with ":" between
//     BLIPFLEET_JOBS    folder that holds one folder per job; default <cache>/jobs. All workers see the same one.
//     BLIPFLEET_CACHE   default $XDG_CACHE_HOME/blipfleet, else ~/.cache/blipfleet

import { realpathSync } from "node:fs";
import { lstat, realpath } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, delimiter, dirname, isAbsolute, join, resolve, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { errorCode, PathError } from "./errors.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** The folder of everything that can be made again. */
export function cacheFolder(environment: Environment = process.env): string {
  if (environment.BLIPFLEET_CACHE) return resolve(environment.BLIPFLEET_CACHE);
  return join(environment.XDG_CACHE_HOME || join(homedir(), ".cache"), "blipfleet");
}

/** The folder that holds one folder per job. */
export function jobsFolder(environment: Environment = process.env): string {
  return resolve(environment.BLIPFLEET_JOBS || join(cacheFolder(environment), "jobs"));
}

/**
 * The file: URI of one job's folder.
 * @throws PathError when the id could leave the jobs' folder.
 */
export function jobFolderUri(jobId: string, environment: Environment = process.env): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(jobId)) {
    throw new PathError(
      `job id: expected up to 128 letters, digits, ".", "_" or "-", the first a letter or digit, got ${JSON.stringify(jobId)}`,
    );
  }
  return pathToFileURL(join(jobsFolder(environment), jobId)).href;
}

/**
 * The folders of BLIPFLEET_ROOTS, symbolic links resolved. Empty when it is not set: then jobs may read nothing.
 * @throws PathError when one is relative or does not exist.
 */
export function allowedRoots(environment: Environment = process.env): string[] {
  const named = (environment.BLIPFLEET_ROOTS ?? "").split(delimiter).filter((root) => root !== "");
  return named.map((root) => {
    if (!isAbsolute(root)) {
      throw new PathError(`BLIPFLEET_ROOTS: expected absolute folders, got ${JSON.stringify(root)}`);
    }
    try {
      return realpathSync(root);
    } catch (error) {
      throw new PathError(`BLIPFLEET_ROOTS: expected existing folders, got ${JSON.stringify(root)}`, { cause: error });
    }
  });
}

/** Schemes that later versions bring, and others that people try. */
const remoteScheme = /^(s3|nats|gs|gcs|az|https?|ftp|hf|data):/i;

/**
 * The path that a `file:` URI or a plain path names; relative ones start at `folder`.
 * @throws PathError for other schemes and malformed URIs.
 */
export function toPath(reference: string, folder: string): string {
  if (reference === "") throw new PathError("path: expected a file path or file: URI, got an empty one");
  if (reference.includes("\0")) throw new PathError("path: expected no NUL character in a path, got one");
  if (/^file:/i.test(reference)) {
    try {
      return fileURLToPath(reference);
    } catch (error) {
      throw new PathError(`path: expected a file: URI such as file:///data/a.jpg, got ${JSON.stringify(reference)}`, {
        cause: error,
      });
    }
  }
  const remote = remoteScheme.exec(reference);
  if (remote !== null) {
    throw new PathError(
      `path: expected a file path or file: URI, got ${JSON.stringify(reference.slice(0, 80))}; ` +
        `${remote[1]}: comes later, until then use a mount that all workers share`,
    );
  }
  return resolve(folder, reference);
}

/** Answers which paths may be read; remembers folders, so that a million images of one folder cost one look-up. */
export interface RootCheck {
  /**
   * The path with all symbolic links resolved. A file that does not exist is judged by its nearest existing folder and
   * returned as it is: reading it fails later, for that item alone.
   * @throws PathError when the path lies, or its links lead, outside the roots.
   */
  resolveInside(path: string): Promise<string>;
}

/** A check against these roots (from allowedRoots). */
export function rootCheck(roots: readonly string[]): RootCheck {
  const folders = new Map<string, Promise<string>>();
  const isInside = (path: string) => roots.some((root) => path === root || path.startsWith(withSeparator(root)));

  /** The real path of a folder; of one that does not exist, the real path of what does and the rest as named. */
  const realFolder = (folder: string): Promise<string> => {
    let known = folders.get(folder);
    if (known === undefined) {
      known = realpath(folder).catch(async (error: unknown) => {
        if (errorCode(error) !== "ENOENT" || dirname(folder) === folder) throw error;
        return join(await realFolder(dirname(folder)), basename(folder));
      });
      if (folders.size >= 10_000) folders.clear();
      folders.set(folder, known);
    }
    return known;
  };

  return {
    async resolveInside(path) {
      if (roots.length === 0) {
        throw new PathError(
          `path: expected BLIPFLEET_ROOTS to name the folders that jobs may read, got none; set it on every worker`,
        );
      }
      const real = await realPathOf(path, realFolder);
      if (isInside(real)) return real;
      throw new PathError(
        `path: expected one below BLIPFLEET_ROOTS (${roots.join(delimiter)}), got ${JSON.stringify(path)}` +
          `${real === path ? "" : `, which leads to ${JSON.stringify(real)}`}; move the file or add its folder`,
      );
    },
  };
}

/** One-off form of rootCheck().resolveInside with the roots of the environment. */
export async function resolveInsideRoots(path: string, environment: Environment = process.env): Promise<string> {
  return rootCheck(allowedRoots(environment)).resolveInside(path);
}

async function realPathOf(path: string, realFolder: (folder: string) => Promise<string>): Promise<string> {
  try {
    const place = join(await realFolder(dirname(path)), basename(path));
    const isLink = await lstat(place).then(
      (found) => found.isSymbolicLink(),
      (error: unknown) => {
        if (errorCode(error) === "ENOENT") return false;
        throw error;
      },
    );
    return isLink ? await realpath(place) : place;
  } catch (error) {
    throw new PathError(
      `path: expected a path that can be followed, got ${JSON.stringify(path)} (${errorCode(error)})`,
      {
        cause: error,
      },
    );
  }
}

function withSeparator(folder: string): string {
  return folder.endsWith(sep) ? folder : folder + sep;
}
