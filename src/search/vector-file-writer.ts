// A new version of an index while it is made: vectors come one image after the other, the rest at the end.

import { createHash } from "node:crypto";
import { type FileHandle, rename } from "node:fs/promises";
import { resolve } from "node:path";
import { activationType } from "../stages.ts";
import { type CodeBasis, codeSizes, fitBasis } from "./codes.ts";
import { ImageIndexError } from "./errors.ts";
import { linesOf } from "./image-list.ts";
import { SearchThreads } from "./search-threads.ts";
import { StoredVectors } from "./stored-vectors.ts";
import {
  abandonedVersions,
  beginVersion,
  endVersion,
  imagesIn,
  journalEntry,
  removeVersion,
  type UnfinishedVersion,
} from "./unfinished-version.ts";
import { versionOf } from "./vector-file.ts";
import {
  checkBytes,
  checkOf,
  format,
  headerBytes,
  type IndexedImage,
  type IndexModel,
  imageBytesOf,
  imagesInPiece,
  type StoredIndex,
  storedTypes,
  type VectorType,
} from "./vector-file-format.ts";

/** Values of vectors below which an index has no codes: reading all of them takes a fraction of a second. */
const leastCodedValues = 2 ** 28;
/** Bits of a code's value. */
const codeBits = 2;
/** Vectors from which the basis of codes is made, for each value of their width. */
const sampleForEachValue = 64;

/** Whether an index gets codes: where it is large, or always, or never. */
export type WhenCoded = "auto" | "always" | "never";

/** Whether an index of so many images is to have codes. */
export function isCoded(images: number, { queries, width }: IndexModel, when: WhenCoded): boolean {
  return images > 0 && (when === "always" || (when === "auto" && images * queries * width >= leastCodedValues));
}

/** A tensor in the header. */
interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** Makes a new version of an index. Nothing is seen of it before commit(). */
export class ImageIndexWriter {
  readonly #file: string;
  readonly #unfinished: UnfinishedVersion;
  readonly #model: IndexModel;
  readonly #type: VectorType;
  #images = 0;
  /** Of all images, and room for more. */
  #checks = new Uint8Array(1024 * checkBytes);
  readonly #entries: Record<string, Entry> = {};
  #hasNew = false;
  #end = headerBytes;

  /** @throws ImageIndexError when nothing can be written there */
  static async create(
    file: string,
    model: IndexModel,
    type: VectorType = activationType(model.dtype),
  ): Promise<ImageIndexWriter> {
    try {
      return new ImageIndexWriter(file, await beginVersion(file, model, type), model, type);
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
      throw new ImageIndexError(`${file}: expected a folder that can be written, got ${code}`, { cause });
    }
  }

  private constructor(file: string, unfinished: UnfinishedVersion, model: IndexModel, type: VectorType) {
    this.#file = file;
    this.#unfinished = unfinished;
    this.#model = model;
    this.#type = type;
  }

  /** Bytes of the vectors of one image: (queries, width), stored. */
  get imageBytes(): number {
    return imageBytesOf({ ...this.#model, type: this.#type });
  }

  /**
   * @param vectors of one or more images, as stored
   * @throws ImageIndexError when they are not of their size, or cannot be written
   */
  async add(vectors: Uint8Array): Promise<void> {
    const size = this.imageBytes;
    if (vectors.length === 0 || vectors.length % size !== 0) {
      throw new ImageIndexError(`${this.#file}: expected vectors of ${size} bytes an image, got ${vectors.length}`);
    }
    await this.#append(vectors);
    for (let from = 0; from < vectors.length; from += size) {
      if (this.#checks.length === this.#images * checkBytes) {
        const longer = new Uint8Array(this.#checks.length * 2);
        longer.set(this.#checks);
        this.#checks = longer;
      }
      this.#checks.set(checkOf(vectors.subarray(from, from + size)), this.#images * checkBytes);
      this.#images += 1;
    }
  }

  /** Add an image that must not be lost, should this process be killed. Before all that are only added. */
  async addNew(vectors: Uint8Array, image: IndexedImage): Promise<void> {
    await this.add(vectors);
    await this.#tryToWrite(() => this.#unfinished.journal.appendFile(journalEntry(image, vectors)));
    this.#hasNew = true;
  }

  /**
   * Take over what runs that were killed left, before anything else is added.
   * @param known digests of images that need not be added
   * @returns the images that were added
   */
  async recover(known: ReadonlySet<string>): Promise<IndexedImage[]> {
    const recovered = new Map<string, IndexedImage>();
    for (const part of await abandonedVersions(this.#file, this.#model, this.#type)) {
      for await (const { image, vectors } of imagesIn(part, this.#model, this.#type)) {
        if (known.has(image.digest) || recovered.has(image.digest)) continue;
        await this.addNew(vectors, image);
        recovered.set(image.digest, image);
      }
      await removeVersion(part);
    }
    return [...recovered.values()];
  }

  /**
   * Put the new version in place. Where that fails, what is new is left for the next run.
   * @param images those whose vectors were added, in that order
   * @param before version of the index that this one is made from, null for none
   * @throws ImageIndexError when somebody else has written the file since
   */
  async commit(images: readonly IndexedImage[], before: string | null, coded: WhenCoded = "auto"): Promise<void> {
    if (images.length !== this.#images) {
      throw new ImageIndexError(
        `${this.#file}: expected ${this.#images} images as vectors were added, got ${images.length}`,
      );
    }
    try {
      await this.#finish(images, coded);
      if ((await versionOf(this.#file)) !== before) {
        throw new ImageIndexError(
          `${this.#file}: expected it to stay as it was while images were encoded, got another version; run the command again`,
        );
      }
      await rename(this.#unfinished.part, this.#file);
    } catch (error) {
      await this.leave();
      throw error;
    }
    await this.abandon();
  }

  /** Leave the index as it is, and nothing beside it. */
  async abandon(): Promise<void> {
    await endVersion(this.#unfinished, false);
  }

  /** Leave the index as it is, and what is new for the next run. */
  async leave(): Promise<void> {
    await endVersion(this.#unfinished, this.#hasNew);
  }

  /** Write all that comes behind the vectors, then the header. */
  async #finish(images: readonly IndexedImage[], coded: WhenCoded): Promise<void> {
    const { ref, digest, dtype, settings, queries, width } = this.#model;
    this.#describe("vectors", storedTypes[this.#type].name, [images.length, queries, width], headerBytes);
    const checks = await this.#appendTensor(
      "checks",
      "U8",
      [images.length, checkBytes],
      [this.#checks.subarray(0, images.length * checkBytes)],
    );
    const codes = isCoded(images.length, this.#model, coded) ? await this.#appendCodes(checks) : {};
    const lines = linesOf(images);
    await this.#appendTensor("images", "U8", [lines.reduce((sum, { length }) => sum + length, 0)], lines);
    const run = { model: ref, model_digest: digest, dtype, ...(settings && { settings: JSON.stringify(settings) }) };
    const metadata = { format, ...run, images_sha256: sha256(lines), ...codes };
    const written = Buffer.from(JSON.stringify({ __metadata__: metadata, ...this.#entries }), "utf8");
    if (written.length > headerBytes - 8) {
      throw new ImageIndexError(`${this.#file}: expected a shorter name of the model than ${ref.length} characters`);
    }
    const header = Buffer.alloc(headerBytes, " ");
    header.writeBigUInt64LE(BigInt(headerBytes - 8), 0);
    written.copy(header, 8);
    await this.#tryToWrite(() => writeAll(this.#unfinished.vectors, header, 0));
    await this.#unfinished.vectors.sync();
  }

  /** Codes of all images that were added. @returns what the header says of them */
  async #appendCodes(checks: number): Promise<Readonly<Record<string, string>>> {
    const { queries, width } = this.#model;
    const images = this.#images;
    const vectors: StoredIndex = {
      ...{ file: resolve(this.#unfinished.part), version: null, images, queries, width, type: this.#type },
      ...{ vectors: headerBytes, checks, codes: null },
    };
    const basis = fitBasis(sampleOf(vectors), queries, width, codeBits);
    const { bits, codeWidth } = basis;
    const piece = imagesInPiece(basis);
    const { blocks, codeBytes, imageCodes, imageFactors } = codeSizes(basis);
    const codes = await this.#makeRoom("codes", "U8", [images, blocks, codeBytes, 16], images * imageCodes);
    const factors = await this.#makeRoom("factors", "BF16", [images, blocks * 16], images * imageFactors);
    const pieces = Math.ceil(images / piece);
    const codeChecks = new SharedArrayBuffer(pieces * checkBytes);
    const threads = new SearchThreads({ ...vectors, codes: { bits, codeWidth, piece, codes, factors, checks: 0 } });
    try {
      await threads.run({ kind: "encode", basis, checks: codeChecks }, pieces);
    } finally {
      await threads.close();
    }
    await this.#appendTensor("code_checks", "U8", [pieces, checkBytes], [new Uint8Array(codeChecks).slice()]);
    const parts = await this.#appendBasis(basis);
    return { code_bits: `${bits}`, code_piece: `${piece}`, basis_sha256: sha256(parts) };
  }

  async #appendBasis({ queries, width, codeWidth, centres, encoder, decoder }: CodeBasis): Promise<Uint8Array[]> {
    const bytes = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    await this.#appendTensor("centres", "F32", [queries, width], [bytes(centres)]);
    await this.#appendTensor("encoder", "F32", [codeWidth, width], [bytes(encoder)]);
    await this.#appendTensor("decoder", "F32", [codeWidth, width], [bytes(decoder)]);
    return [centres, encoder, decoder].map(bytes);
  }

  /** @returns where it begins, in bytes of the file */
  async #appendTensor(
    name: string,
    dtype: string,
    shape: readonly number[],
    parts: readonly Uint8Array[],
  ): Promise<number> {
    const start = this.#end;
    for (const part of parts) await this.#append(part);
    return this.#describe(name, dtype, shape, start);
  }

  /** A tensor whose bytes others write. @returns where it begins */
  async #makeRoom(name: string, dtype: string, shape: readonly number[], bytes: number): Promise<number> {
    const start = this.#end;
    await this.#tryToWrite(() => this.#unfinished.vectors.truncate(start + bytes));
    this.#end = start + bytes;
    return this.#describe(name, dtype, shape, start);
  }

  #describe(name: string, dtype: string, shape: readonly number[], start: number): number {
    this.#entries[name] = { dtype, shape, data_offsets: [start - headerBytes, this.#end - headerBytes] };
    return start;
  }

  async #append(bytes: Uint8Array): Promise<void> {
    await this.#tryToWrite(() => writeAll(this.#unfinished.vectors, bytes, this.#end));
    this.#end += bytes.length;
  }

  async #tryToWrite(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
      throw new ImageIndexError(`${this.#file}: expected room for the index, got ${code}`, { cause });
    }
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, at + done);
    done += bytesWritten;
  }
}

/** Evenly spread images, enough for a basis of codes. */
function sampleOf(stored: StoredIndex): Float32Array {
  const { images, queries, width } = stored;
  const size = queries * width;
  const count = Math.min(images, Math.ceil((sampleForEachValue * width) / queries));
  const sample = new Float32Array(count * size);
  const vectors = new StoredVectors(stored);
  try {
    for (let i = 0; i < count; i++) {
      vectors.read(Math.floor((i * images) / count), 1, sample.subarray(i * size, (i + 1) * size));
    }
  } finally {
    vectors.close();
  }
  return sample;
}

function sha256(parts: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}
