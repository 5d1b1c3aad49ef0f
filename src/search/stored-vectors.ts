// Vectors of an index at any place, read and checked. Synchronous: this is for threads that do nothing else meanwhile.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { ImageIndexError } from "./errors.ts";
import {
  checkBytes,
  checkOf,
  decodeStored,
  imageBytesOf,
  type StoredIndex,
  versionFrom,
} from "./vector-file-format.ts";

/** An open index. @throws ImageIndexError when the file is not the one that was opened before */
export class StoredVectors {
  readonly stored: StoredIndex;
  readonly #file: number;

  constructor(stored: StoredIndex) {
    this.stored = stored;
    try {
      this.#file = openSync(stored.file, "r");
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
      throw new ImageIndexError(`${stored.file}: expected a readable index, got ${code}`, { cause });
    }
    if (stored.version === null || versionFrom(fstatSync(this.#file)) === stored.version) return;
    closeSync(this.#file);
    throw new ImageIndexError(
      `${stored.file}: expected it to stay as it was while it is searched, got another version; run the command again`,
    );
  }

  /** Fill `into` with what begins at a byte of the file. @throws ImageIndexError when it ends before */
  readBytes(into: Uint8Array, at: number): void {
    for (let done = 0; done < into.length; ) {
      const read = readSync(this.#file, into, done, into.length - done, at + done);
      if (read === 0) throw damaged(this.stored.file, `an end at byte ${at + done}`);
      done += read;
    }
  }

  /** The vectors of consecutive images: (images, queries, width). @throws ImageIndexError for damaged ones */
  read(first: number, images: number, into: Float32Array): void {
    const { queries, width, type, vectors, checks, file } = this.stored;
    const imageBytes = imageBytesOf(this.stored);
    const bytes = new Uint8Array(images * imageBytes);
    this.readBytes(bytes, vectors + first * imageBytes);
    const wanted = Buffer.alloc(images * checkBytes);
    this.readBytes(wanted, checks + first * checkBytes);
    for (let i = 0; i < images; i++) {
      const check = checkOf(bytes.subarray(i * imageBytes, (i + 1) * imageBytes));
      if (wanted.compare(check, 0, checkBytes, i * checkBytes, (i + 1) * checkBytes) !== 0) {
        throw damaged(file, `vectors of image ${first + i} with another checksum`);
      }
    }
    decodeStored(bytes, type, width, into.subarray(0, images * queries * width));
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** What is told of a file that is not as it was written. */
export function damaged(file: string, what: string): ImageIndexError {
  return new ImageIndexError(`${file}: expected an undamaged index, got ${what}; delete it and index the images again`);
}
