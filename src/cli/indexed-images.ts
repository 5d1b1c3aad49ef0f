// The images of an index where they lie now.

import { readFile } from "node:fs/promises";
import { ImageError } from "../image/image-error.ts";
import { sha256 } from "../jobs/store.ts";
import type { IndexedImage } from "../search/vector-file-format.ts";

/** The bytes of an image, from the first of its paths that still has them. @throws ImageError */
export async function bytesOf({ digest, images }: IndexedImage): Promise<Uint8Array> {
  const problems: string[] = [];
  for (const image of images) {
    try {
      const bytes = await readFile(image);
      if (sha256(bytes) === digest) return bytes;
      problems.push(`${image} has other bytes`);
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      problems.push(`${image}: ${code === "ENOENT" ? "no such file" : code}`);
    }
  }
  throw new ImageError(
    `expected the image as it was indexed, got ${problems.join("; ")}; index it again, or use --rerank 0`,
  );
}
