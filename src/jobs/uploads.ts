// Images that a caller has only as bytes: kept once by content beside the jobs, where every worker may read them.

import { mkdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { errorCode, StoreError } from "./errors.ts";
import { type Environment, jobsFolder } from "./roots.ts";
import { folderStore, sha256 } from "./store.ts";

/** Bytes; an answer's image is small. Larger ones belong into a folder that the workers may read. */
export const largestUpload = 16 * 1024 * 1024;

/**
 * The folder of uploads, made if need be, symbolic links resolved. Its name is no job id. Safe to empty when idle.
 * @throws StoreError when it cannot be made
 */
export function uploadsFolder(environment: Environment = process.env): string {
  const folder = join(jobsFolder(environment), "_uploads");
  try {
    mkdirSync(folder, { recursive: true });
    return realpathSync(folder);
  } catch (cause) {
    throw new StoreError(
      `BLIPFLEET_JOBS: expected a folder that can be written, got ${errorCode(cause)} for ${folder}`,
      {
        cause,
      },
    );
  }
}

/**
 * Keep an image and name it.
 * @returns its file: URI; equal bytes have equal URIs
 * @throws StoreError when it is empty, too large, or cannot be written
 */
export async function uploadImage(bytes: Uint8Array, environment: Environment = process.env): Promise<string> {
  if (bytes.length === 0 || bytes.length > largestUpload) {
    throw new StoreError(
      `upload: expected an image of 1 to ${largestUpload} bytes, got ${bytes.length}; ` +
        "put it below BLIPFLEET_ROOTS and pass its URI",
    );
  }
  const folder = uploadsFolder(environment);
  const { name } = await folderStore(folder).commit(sha256(bytes), bytes);
  return pathToFileURL(join(folder, name)).href;
}
