// The bytes of an item's image, from below the roots.

import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { ImageError, maxImageBytes, whereListsStart } from "../../image/image-error.ts";
import { errorCode, PathError } from "../../jobs/errors.ts";
import { type RootCheck, toPath } from "../../jobs/roots.ts";

/** A file system's way to say that the path is wrong, now and later. */
const wrongPath: ReadonlySet<string> = new Set([
  "ENOENT",
  "ENOTDIR",
  "ENXIO",
  "EISDIR",
  "EACCES",
  "EPERM",
  "ELOOP",
  "ENAMETOOLONG",
]);

/**
 * Read an image.
 * @param uri a file: URI, as manifests have them, or an absolute path
 * @throws PathError when it is neither, or outside the roots
 * @throws ImageError when it is missing, no file, not readable or too large
 */
export async function readImage(uri: string, roots: RootCheck): Promise<Buffer> {
  const path = await roots.resolveInside(absolutePath(uri));
  try {
    // Without O_NONBLOCK a named pipe would hold a thread of this process until somebody writes to it.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const { size, isFile } = await file.stat().then((stat) => ({ size: stat.size, isFile: stat.isFile() }));
      if (!isFile) throw new ImageError(`image: expected a file at ${path}, got something else`);
      if (size > maxImageBytes)
        throw new ImageError(`image: expected at most ${maxImageBytes} bytes, got ${size} in ${path}`);
      return await file.readFile();
    } finally {
      await file.close();
    }
  } catch (error) {
    const code = errorCode(error) ?? "";
    if (!wrongPath.has(code)) throw error;
    const hint = code === "ENOENT" ? `; ${whereListsStart}` : "";
    throw new ImageError(`image: expected a readable file at ${path}, got ${code}${hint}`, { cause: error });
  }
}

/** @throws PathError for a relative path too: the caller's folder is not the worker's. */
function absolutePath(uri: string): string {
  const path = toPath(uri, "/");
  if (/^file:/i.test(uri) || isAbsolute(uri)) return path;
  throw new PathError(`path: expected a file: URI or an absolute path, got ${JSON.stringify(uri)}`);
}
