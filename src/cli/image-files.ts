// Image files as the command line names them.

import { readFile, stat } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { ImageError, maxImageBytes, whereListsStart } from "../image/image-error.ts";
import { describeError } from "./errors.ts";

/** What to do about a folder where an image is wanted, by what the command can do. */
const jobsTake = "use `blipfleet job submit` for folders";
export const insteadOfFolder = {
  job: `${jobsTake}, or name its files`,
  jobOrFrames: `${jobsTake}, --frames for the frames of a video, or name its files`,
  file: "name one of its files",
} as const;

/**
 * The bytes of an image that the command line names.
 * @param instead what a folder's error says is to be done
 * @throws ImageError
 */
export async function readImageFile(image: string, instead: string = insteadOfFolder.job): Promise<Uint8Array> {
  try {
    const found = await stat(image);
    if (found.isDirectory()) {
      throw new ImageError(`${image}: expected an image file, got a folder; ${instead}`);
    }
    const { size } = found;
    if (size > maxImageBytes) {
      throw new ImageError(`${image}: expected at most ${maxImageBytes} bytes, got ${size}; store it smaller`);
    }
    return await readFile(image);
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    const got = code === "ENOENT" ? "no such file" : code;
    throw new ImageError(`${image}: expected a readable image file, got ${got}`, { cause });
  }
}

/** The bytes of an image of a list or folder, whose relative paths may start elsewhere than was meant. @throws ImageError */
export async function readListedFile({
  image,
  path,
}: {
  readonly image: string;
  readonly path: string;
}): Promise<Uint8Array> {
  try {
    return await readImageFile(path);
  } catch (cause) {
    const isMissing =
      cause instanceof ImageError && (cause.cause as NodeJS.ErrnoException | undefined)?.code === "ENOENT";
    if (!isMissing || image === path || isAbsolute(image) || /^file:/i.test(image)) throw cause;
    throw new ImageError(`${cause.message}; ${whereListsStart}`, { cause });
  }
}

/** Run `work` on a file, named in what is wrong with its bytes. @throws ImageError, and what else `work` throws */
export async function namingFile<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    // By name: it may come from a thread, whose errors are of no class here.
    const { type, message } = describeError(cause);
    if (type !== "ImageError" || !message.startsWith("image: ")) throw cause;
    throw new ImageError(`${file}: ${message.slice("image: ".length)}`, { cause });
  }
}
