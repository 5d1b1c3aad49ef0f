// The images of an index: lines of JSON, parsed when one is asked for, because a million of them take seconds.

import { type IndexedImage, imageLine } from "./vector-file-format.ts";

const lineFeed = 10;

export class ImageList implements Iterable<IndexedImage> {
  readonly #lines: Buffer;
  /** Where each line begins, and where the last one ends. */
  readonly #starts: number[] = [0];

  /** @param lines each with its line feed */
  constructor(lines: Uint8Array) {
    this.#lines = Buffer.from(lines.buffer, lines.byteOffset, lines.byteLength);
    for (let at = this.#lines.indexOf(lineFeed); at >= 0; at = this.#lines.indexOf(lineFeed, at + 1)) {
      this.#starts.push(at + 1);
    }
  }

  get length(): number {
    return this.#starts.length - 1;
  }

  /** @param place from 0, below the length */
  at(place: number): IndexedImage {
    return imageLine.parse(JSON.parse(this.#lines.toString("utf8", this.#starts[place], this.#starts[place + 1])));
  }

  *[Symbol.iterator](): Generator<IndexedImage> {
    for (let place = 0; place < this.length; place++) yield this.at(place);
  }
}

/** Lines as an ImageList reads them. */
export function linesOf(images: readonly IndexedImage[]): Uint8Array[] {
  const lines: Uint8Array[] = [];
  for (let first = 0; first < images.length; first += imagesInPart) {
    const part = images.slice(first, first + imagesInPart);
    lines.push(Buffer.from(part.map((image) => `${JSON.stringify(image)}\n`).join(""), "utf8"));
  }
  return lines;
}

/** Lines made into one text; the text of a million would be longer than JavaScript's longest. */
const imagesInPart = 4096;
