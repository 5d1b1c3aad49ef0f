// Image files as the command line names them.

import { readFile, stat } from "node:fs/promises";
import { ImageError, maxImageBytes } from "../image/image-error.ts";

/** The bytes of an image that the command line names. @throws ImageError */
export async function readImageFile(image: string): Promise<Uint8Array> {
  try {
    const found = await stat(image);
    if (found.isDirectory()) {
      throw new ImageError(
        `${image}: expected an image file, got a folder; use \`blipfleet job submit\` for folders, or name its files`,
      );
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
