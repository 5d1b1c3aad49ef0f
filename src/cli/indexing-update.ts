// A new version of an index while it is made: by `index` from images that it encodes, by `job export` from vectors that
// workers committed. New images come first, in the order of the input, then those that the old version has.

import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { ImageIndex } from "../search/vector-file.ts";
import { encodeStored, type IndexedImage, type IndexModel, type VectorType } from "../search/vector-file-format.ts";
import { ImageIndexWriter, isCoded, type WhenCoded } from "../search/vector-file-writer.ts";
import { activationType, type ContrastCard, type Vectors } from "../stages.ts";
import { describeError } from "./errors.ts";

/** What came of an image. */
export type IndexResult = { readonly image: string } & (
  | { readonly digest: string; readonly state: "encoded" | "kept" }
  | { readonly error: { readonly type: string; readonly message: string } }
);

export interface IndexCounts {
  readonly encoded: number;
  /** Images that were there already, or came twice. */
  readonly kept: number;
  /** Images that a run which was killed had encoded. */
  readonly recovered: number;
  readonly failed: number;
  /** Distinct images in the index now. */
  readonly images: number;
}

/** An image that was read: bytes that the index has not yet come with their vectors, as they are stored. */
export type Looked = { readonly image: string /** Absolute; default: `image` from here. */; readonly path?: string } & (
  | { readonly digest: string; readonly vectors: Uint8Array | null }
  | { readonly error: unknown }
);

/** Whose vectors they are. */
export function indexModel(ref: string, card: ContrastCard): IndexModel {
  const { digest, dtype, settings, vectors } = card;
  const [queries, width] = vectors;
  return { ref: existsSync(ref) ? resolve(ref) : ref, digest, dtype, ...(settings && { settings }), queries, width };
}

/** How vectors are stored: as asked for, else as the index has them, a new one as the model gives them. */
export function storedType(
  old: ImageIndex | null,
  { dtype }: IndexModel,
  asked: "full" | "int8" | undefined,
): VectorType {
  if (asked === undefined) return old?.stored.type ?? activationType(dtype);
  return asked === "int8" ? "int8" : activationType(dtype);
}

/** How an index is stored. */
export interface StoredForm {
  readonly type: VectorType;
  readonly codes: WhenCoded;
}

/** The new version of an index while it is made: new images are written as they come, the old ones at the end. */
export class IndexUpdate {
  readonly #writer: ImageIndexWriter;
  readonly #old: ImageIndex | null;
  readonly #model: IndexModel;
  readonly #form: StoredForm;
  /** Images of the old version, and those that are written. */
  readonly #known: Set<string>;
  /** Vectors of images that are being encoded, so that copies of one image are encoded once. */
  readonly #underWay = new Map<string, Promise<Uint8Array>>();
  /** The paths of each image, and the image at each path. */
  readonly #paths = new Map<string, Set<string>>();
  readonly #digests = new Map<string, string>();
  /** Images that are written, in order. */
  readonly #written = new Set<string>();
  #kept = 0;
  #recovered = 0;
  /** Whether a path of the old version has another image now, or an image another path. */
  #moved = false;

  static async begin(file: string, old: ImageIndex | null, model: IndexModel, form: StoredForm): Promise<IndexUpdate> {
    const update = new IndexUpdate(await ImageIndexWriter.create(file, model, form.type), old, model, form);
    await update.#recover();
    return update;
  }

  private constructor(writer: ImageIndexWriter, old: ImageIndex | null, model: IndexModel, form: StoredForm) {
    this.#writer = writer;
    this.#old = old;
    this.#model = model;
    this.#form = form;
    const images = [...(old?.images ?? [])];
    this.#known = new Set(images.map(({ digest }) => digest));
    for (const { digest, images: paths } of images) for (const path of paths) this.#place(path, digest);
    this.#moved = false;
  }

  /** Take over what runs that were killed had encoded. */
  async #recover(): Promise<void> {
    for (const { digest, images } of await this.#writer.recover(this.#known)) {
      this.#written.add(digest);
      this.#known.add(digest);
      for (const path of images) this.#place(path, digest);
    }
    this.#recovered = this.#written.size;
  }

  /** An image's vectors as the index stores them. */
  stored(vectors: Vectors): Uint8Array {
    return encodeStored(vectors, this.#form.type);
  }

  /** The vectors of an image, by `encode` if nobody makes them yet; null when the index has them. */
  async vectorsOf(digest: string, encode: () => Promise<Uint8Array>): Promise<Uint8Array | null> {
    if (this.#known.has(digest)) return null;
    const made = this.#underWay.get(digest) ?? encode();
    this.#underWay.set(digest, made);
    try {
      return await made;
    } catch (error) {
      this.#underWay.delete(digest);
      throw error;
    }
  }

  /** Whether the index has an image, or will have it. */
  has(digest: string): boolean {
    return this.#known.has(digest);
  }

  /** What was looked at, one after the other. */
  async take(looked: Looked): Promise<IndexResult> {
    const { image } = looked;
    if ("error" in looked) return { image, error: describeError(looked.error) };
    const { digest, vectors, path = resolve(image) } = looked;
    const isNew = vectors !== null && !this.#known.has(digest);
    if (isNew) {
      await this.#writer.addNew(vectors, { digest, images: [path] });
      this.#written.add(digest);
      this.#known.add(digest);
    } else {
      this.#kept += 1;
    }
    this.#underWay.delete(digest);
    this.#place(path, digest);
    return { image, digest, state: isNew ? "encoded" : "kept" };
  }

  /** Put the new version in place, unless it is as the old one. */
  async end(): Promise<Omit<IndexCounts, "failed">> {
    const recovered = this.#recovered;
    const counts = { encoded: this.#written.size - recovered, kept: this.#kept, recovered };
    if (this.#written.size === 0 && !this.#moved && !this.#isRecoded()) {
      await this.abandon();
      return { ...counts, images: this.#old?.images.length ?? 0 };
    }
    const images = [...this.#written].map((digest) => this.#entry(digest));
    try {
      // An image that is at none of its old paths any more is left out.
      for await (const { first, images: count, bytes } of this.#old?.blocks() ?? []) {
        for (let i = 0; i < count; i++) {
          const entry = this.#entry(this.#old?.images.at(first + i).digest ?? "");
          if (entry.images.length === 0) continue;
          await this.#writer.add(bytes.subarray(i * this.#writer.imageBytes, (i + 1) * this.#writer.imageBytes));
          images.push(entry);
        }
      }
    } catch (error) {
      await this.leave();
      throw error;
    }
    await this.#writer.commit(images, this.#old?.version ?? null, this.#form.codes);
    return { ...counts, images: images.length };
  }

  /** Leave the index as it was. */
  abandon(): Promise<void> {
    return this.#writer.abandon();
  }

  /** Leave the index as it was, and what was encoded for the next run. */
  leave(): Promise<void> {
    return this.#writer.leave();
  }

  /** Whether the old version lacks codes that it should have, or has some that it should not. */
  #isRecoded(): boolean {
    if (this.#old === null || this.#form.codes === "auto") return false;
    return isCoded(this.#old.images.length, this.#model, this.#form.codes) !== (this.#old.basis !== null);
  }

  #entry(digest: string): IndexedImage {
    return { digest, images: [...(this.#paths.get(digest) ?? [])] };
  }

  #place(path: string, digest: string): void {
    const before = this.#digests.get(path);
    if (before === digest) return;
    this.#moved = true;
    // An image that was written keeps its last path: it was there a moment ago.
    const others = before === undefined ? undefined : this.#paths.get(before);
    if (before !== undefined && others && (others.size > 1 || !this.#written.has(before))) others.delete(path);
    this.#digests.set(path, digest);
    this.#paths.set(digest, (this.#paths.get(digest) ?? new Set()).add(path));
  }
}
