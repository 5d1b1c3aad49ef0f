// An index of images: the vectors of each distinct image, in one file.
//
// The file is a safetensors file, so that any tool can read it:
//
//     vectors         (images, queries, width) F32 or F16: unit vectors, in the type of the model's run
//     images          bytes of text, one JSON line per image, in the order of `vectors`:
//                     {"digest": hex SHA-256 of the image file, "images": [absolute paths that had these bytes]}
//     __metadata__    format: "blipfleet image index 1"; model, model_digest, dtype; vectors_sha256, images_sha256
//
// The header is padded to 4096 bytes and written last, so that vectors can be written while they are made. A file is
// made beside its name and renamed over it: readers see the old one or the new one. Vectors are read in pieces, and what
// was read is good only once the last piece has come, because only then their checksum is known.

import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import type { Dtype } from "../stages.ts";
import { readPieces, readSafetensorsHeader, type StoredTensor } from "../weights/safetensors.ts";
import { ImageIndexError } from "./errors.ts";
import { decodeVectors } from "./similarity.ts";

const format = "blipfleet image index 1";
/** Bytes of length and header together. */
const headerBytes = 4096;
/** Bytes of vectors that are in memory at a time. */
const pieceBytes = 4 * 1024 * 1024;

/** Whose vectors they are. Vectors of different models, or of one model under different types, cannot be compared. */
export interface IndexModel {
  /** Hugging Face id or absolute path; names the model to people, and is what `search` loads unasked. */
  readonly ref: string;
  readonly digest: string;
  readonly dtype: Dtype;
  readonly queries: number;
  readonly width: number;
}

export interface IndexedImage {
  /** Hex SHA-256 of the image file. */
  readonly digest: string;
  /** Absolute paths, at least one. */
  readonly images: readonly string[];
}

/** Consecutive images. `values` is reused for the next block. */
export interface VectorBlock {
  /** Place of the first one. */
  readonly first: number;
  readonly images: number;
  /** (images, queries, width) */
  readonly values: Float32Array;
  /** The same as it is stored. */
  readonly bytes: Uint8Array;
}

export interface ImageIndex {
  readonly file: string;
  readonly model: IndexModel;
  readonly images: readonly IndexedImage[];
  /** All vectors in order. @throws ImageIndexError after the last block when they are not what was written */
  blocks(): AsyncGenerator<VectorBlock>;
  /** Changes when the file is replaced. */
  readonly version: string;
}

const imageLine = z.object({ digest: z.string().regex(/^[0-9a-f]{64}$/), images: z.array(z.string()).min(1) });
const metadataSchema = z.object({
  format: z.literal(format),
  model: z.string(),
  model_digest: z.string().regex(/^[0-9a-f]{64}$/),
  dtype: z.enum(["f32", "f16"]),
  vectors_sha256: z.string(),
  images_sha256: z.string(),
});

/**
 * Read everything but the vectors. @returns null when there is no such file
 * @throws ImageIndexError for a file that is no index or is damaged
 */
export async function openImageIndex(file: string): Promise<ImageIndex | null> {
  const version = await versionOf(file);
  if (version === null) return null;
  const { metadata, tensors, problems } = await readSafetensorsHeader(file, file).catch(
    (cause: NodeJS.ErrnoException) => {
      throw new ImageIndexError(`${file}: expected a readable index, got ${cause.code ?? cause.message}`, { cause });
    },
  );
  if (metadata.format !== format) {
    throw new ImageIndexError(
      `${file}: expected an index of images made by \`blipfleet index\`, got ${metadata.format ?? "another kind of file"}; name another file`,
    );
  }
  const damaged = (what: string) =>
    new ImageIndexError(`${file}: expected an undamaged index, got ${what}; delete it and index the images again`);
  if (problems.length > 0) throw damaged(problems.join("; "));
  const read = metadataSchema.safeParse(metadata);
  if (!read.success)
    throw damaged(`a header without ${read.error.issues.map(({ path }) => path.join(".")).join(", ")}`);
  const { model: ref, model_digest: digest, dtype, vectors_sha256, images_sha256 } = read.data;
  const vectors = tensors.find(({ name }) => name === "vectors");
  const list = tensors.find(({ name }) => name === "images");
  const [count = -1, queries = 0, width = 0] = vectors?.shape ?? [];
  if (!vectors || !list || vectors.shape.length !== 3 || queries === 0 || width === 0) throw damaged("no vectors");
  if (vectors.dtype !== (dtype === "f32" ? "F32" : "F16")) throw damaged(`vectors of ${vectors.dtype} under ${dtype}`);
  const lines = await readWhole(list);
  if (sha256(lines) !== images_sha256) throw damaged("a list of images with another checksum");
  const images = Buffer.from(lines)
    .toString("utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => imageLine.parse(JSON.parse(line)));
  if (images.length !== count) throw damaged(`${images.length} images with the vectors of ${count}`);
  return {
    file,
    model: { ref, digest, dtype, queries, width },
    images,
    version,
    async *blocks() {
      const hash = createHash("sha256");
      const valueBytes = dtype === "f32" ? 4 : 2;
      const imageBytes = queries * width * valueBytes;
      let values = new Float32Array(0);
      for await (const { at, bytes } of readPieces(vectors, imageBytes, Math.max(pieceBytes, imageBytes))) {
        hash.update(bytes);
        if (values.length !== bytes.length / valueBytes) values = new Float32Array(bytes.length / valueBytes);
        decodeVectors(bytes, dtype, values);
        yield { first: at / imageBytes, images: bytes.length / imageBytes, values, bytes };
      }
      if (hash.digest("hex") !== vectors_sha256) throw damaged("vectors with another checksum");
    },
  };
}

/** Refuse vectors of another model. @throws ImageIndexError */
export function expectModel({ file, model }: Pick<ImageIndex, "file" | "model">, wanted: IndexModel): void {
  const same = model.digest === wanted.digest && model.queries === wanted.queries && model.width === wanted.width;
  if (same && model.dtype === wanted.dtype) return;
  const name = ({ ref, digest, dtype }: IndexModel) => `${ref} (${digest.slice(0, 12)}) as ${dtype}`;
  throw new ImageIndexError(
    `${file}: expected an index made with ${name(wanted)}, got one made with ${name(model)}; ` +
      "use that model and type, or another file",
  );
}

/** Makes a new version of an index. Nothing is seen of it before commit(). */
export class ImageIndexWriter {
  readonly #file: string;
  readonly #part: string;
  readonly #handle: FileHandle;
  readonly #model: IndexModel;
  #images = 0;
  readonly #hash: Hash = createHash("sha256");
  #end = headerBytes;

  /** @throws ImageIndexError when nothing can be written there */
  static async create(file: string, model: IndexModel): Promise<ImageIndexWriter> {
    const part = join(dirname(file), `.${basename(file)}.${process.pid}.part`);
    try {
      return new ImageIndexWriter(file, part, await open(part, "w"), model);
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
      throw new ImageIndexError(`${file}: expected a folder that can be written, got ${code}`, { cause });
    }
  }

  private constructor(file: string, part: string, handle: FileHandle, model: IndexModel) {
    this.#file = file;
    this.#part = part;
    this.#handle = handle;
    this.#model = model;
  }

  /** Bytes of the vectors of one image: (queries, width) in the model's type, little-endian. */
  get imageBytes(): number {
    const { queries, width, dtype } = this.#model;
    return queries * width * (dtype === "f32" ? 4 : 2);
  }

  /** @param vectors of one image. @throws ImageIndexError when they are not of its size, or cannot be written */
  async add(vectors: Uint8Array): Promise<void> {
    if (vectors.length !== this.imageBytes) {
      throw new ImageIndexError(`${this.#file}: expected vectors of ${this.imageBytes} bytes, got ${vectors.length}`);
    }
    await this.#append(vectors);
    this.#hash.update(vectors);
    this.#images += 1;
  }

  /**
   * Put the new version in place.
   * @param images those whose vectors were added, in that order
   * @param before version of the index that this one is made from, null for none
   * @throws ImageIndexError when somebody else has written the file since
   */
  async commit(images: readonly IndexedImage[], before: string | null): Promise<void> {
    if (images.length !== this.#images) {
      throw new ImageIndexError(
        `${this.#file}: expected ${this.#images} images as vectors were added, got ${images.length}`,
      );
    }
    try {
      await this.#commit(images, before);
    } catch (error) {
      await rm(this.#part, { force: true });
      throw error;
    }
  }

  async #commit(images: readonly IndexedImage[], before: string | null): Promise<void> {
    const vectorBytes = this.#end - headerBytes;
    const lines = Buffer.from(images.map((image) => `${JSON.stringify(image)}\n`).join(""), "utf8");
    await this.#append(lines);
    await this.#handle.write(this.#header(vectorBytes, lines), 0, headerBytes, 0);
    await this.#handle.sync();
    await this.#handle.close();
    if ((await versionOf(this.#file)) !== before) {
      throw new ImageIndexError(
        `${this.#file}: expected it to stay as it was while images were encoded, got another version; run the command again`,
      );
    }
    await rename(this.#part, this.#file);
  }

  /** Leave the index as it was. */
  async abandon(): Promise<void> {
    await this.#handle.close();
    await rm(this.#part, { force: true });
  }

  #header(vectorBytes: number, lines: Uint8Array): Buffer {
    const { ref, digest, dtype, queries, width } = this.#model;
    const images = this.#images;
    const end = vectorBytes + lines.length;
    const json = JSON.stringify({
      __metadata__: {
        format,
        model: ref,
        model_digest: digest,
        dtype,
        vectors_sha256: this.#hash.digest("hex"),
        images_sha256: sha256(lines),
      },
      vectors: {
        dtype: dtype === "f32" ? "F32" : "F16",
        shape: [images, queries, width],
        data_offsets: [0, vectorBytes],
      },
      images: { dtype: "U8", shape: [lines.length], data_offsets: [vectorBytes, end] },
    });
    const header = Buffer.alloc(headerBytes, " ");
    header.writeBigUInt64LE(BigInt(headerBytes - 8), 0);
    const written = Buffer.from(json, "utf8");
    if (written.length > headerBytes - 8) {
      throw new ImageIndexError(`${this.#file}: expected a shorter name of the model than ${ref.length} characters`);
    }
    written.copy(header, 8);
    return header;
  }

  async #append(bytes: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, this.#end + done);
        done += bytesWritten;
      }
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
      throw new ImageIndexError(`${this.#file}: expected room for the index, got ${code}`, { cause });
    }
    this.#end += bytes.length;
  }
}

async function versionOf(file: string): Promise<string | null> {
  try {
    const { ino, size, mtimeMs } = await stat(file);
    return `${ino} ${size} ${mtimeMs}`;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") return null;
    throw new ImageIndexError(`${file}: expected a readable index, got ${code}`, { cause });
  }
}

async function readWhole(tensor: StoredTensor): Promise<Uint8Array> {
  const whole = new Uint8Array(tensor.bytes);
  for await (const { at, bytes } of readPieces(tensor, 1, pieceBytes)) whole.set(bytes, at);
  return whole;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
