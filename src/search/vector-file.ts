// An index of images as it is read: vector-file-format.ts says what is in the file.
//
// A file is made beside its name and renamed over it: readers see the old one or the new one. Each image's vectors have a
// checksum; what was read counts once it has been compared.

import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { z } from "zod";
import { activationType, dtypes, type RunSettings } from "../stages.ts";
import {
  readPieces,
  readSafetensorsHeader,
  type SafetensorsHeader,
  type StoredTensor,
} from "../weights/safetensors.ts";
import { type CodeBasis, type CodeBits, codeSizes } from "./codes.ts";
import { ImageIndexError } from "./errors.ts";
import { ImageList } from "./image-list.ts";
import { decodeVectors } from "./similarity.ts";
import { damaged } from "./stored-vectors.ts";
import {
  checkBytes,
  checkOf,
  decodeStored,
  format,
  type IndexModel,
  imageBytesOf,
  type StoredCodes,
  type StoredIndex,
  storedTypes,
  type VectorType,
  versionFrom,
} from "./vector-file-format.ts";

/** Bytes of vectors that are in memory at a time. */
const pieceBytes = 4 * 1024 * 1024;

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
  readonly images: ImageList;
  readonly stored: StoredIndex;
  /** How its codes are made, null where there are none. */
  readonly basis: CodeBasis | null;
  /** All vectors in order. @throws ImageIndexError when they are not what was written */
  blocks(): AsyncGenerator<VectorBlock>;
  /** Changes when the file is replaced. */
  readonly version: string;
}

const hexDigest = z.string().regex(/^[0-9a-f]{64}$/);
const metadataSchema = z.object({
  format: z.literal(format),
  model: z.string(),
  model_digest: hexDigest,
  dtype: z.enum(dtypes),
  settings: z.string().optional(),
  images_sha256: z.string(),
});
/** RunSettings as text. */
const settingsSchema = z
  .string()
  .transform((text, context): unknown => {
    try {
      return JSON.parse(text);
    } catch {
      context.addIssue("expected JSON");
      return z.NEVER;
    }
  })
  .pipe(z.object({ imageSize: z.number().int().positive().optional(), behaviour: z.literal("lavis").optional() }));
const codeMetadataSchema = z.object({
  code_bits: z.enum(["1", "2"]),
  code_piece: z.string().regex(/^[1-9]\d{0,8}$/),
  basis_sha256: z.string(),
});

/**
 * Read everything but the vectors. @returns null when there is no such file
 * @throws ImageIndexError for a file that is no index or is damaged
 */
export async function openImageIndex(file: string): Promise<ImageIndex | null> {
  const version = await versionOf(file);
  if (version === null) return null;
  const header = await readSafetensorsHeader(file, file).catch((cause: NodeJS.ErrnoException) => {
    throw new ImageIndexError(`${file}: expected a readable index, got ${cause.code ?? cause.message}`, { cause });
  });
  const { metadata, tensors, problems } = header;
  if (metadata.format !== format) {
    const isOld = metadata.format?.startsWith("blipfleet image index ") ?? false;
    throw new ImageIndexError(
      isOld
        ? `${file}: expected a ${format}, got a ${metadata.format}; delete it and index the images again`
        : `${file}: expected an index of images made by \`blipfleet index\`, got ${metadata.format ?? "another kind of file"}; name another file`,
    );
  }
  if (problems.length > 0) throw damaged(file, problems.join("; "));
  const read = metadataSchema.safeParse(metadata);
  if (!read.success) {
    throw damaged(file, `a header without ${read.error.issues.map(({ path }) => path.join(".")).join(", ")}`);
  }
  const { model: ref, model_digest: digest, dtype, images_sha256 } = read.data;
  const settings = readSettings(file, read.data.settings);
  const vectors = tensors.find(({ name }) => name === "vectors");
  const list = tensors.find(({ name }) => name === "images");
  const checks = tensors.find(({ name }) => name === "checks");
  const [count = -1, queries = 0, width = 0] = vectors?.shape ?? [];
  if (!vectors || !list || !checks || vectors.shape.length !== 3 || queries === 0 || width === 0) {
    throw damaged(file, "no vectors");
  }
  const type = (["f32", "f16", "int8"] as const).find((each) => storedTypes[each].name === vectors.dtype);
  if (type === undefined || (type !== "int8" && type !== activationType(dtype))) {
    throw damaged(file, `vectors of ${vectors.dtype} under ${dtype}`);
  }
  if (checks.bytes !== count * checkBytes) throw damaged(file, `${checks.bytes} bytes of checks for ${count} images`);
  const lines = await readWhole(list);
  if (sha256(lines) !== images_sha256) throw damaged(file, "a list of images with another checksum");
  const images = new ImageList(lines);
  if (images.length !== count) throw damaged(file, `${images.length} images with the vectors of ${count}`);
  const coded = tensors.some(({ name }) => name === "codes")
    ? await readCodes(file, header, { images: count, queries, width })
    : null;
  const stored: StoredIndex = {
    ...{ file: resolve(file), version, images: count, queries, width, type },
    ...{ vectors: vectors.start, checks: checks.start, codes: coded?.codes ?? null },
  };
  return {
    file,
    model: { ref, digest, dtype, ...(settings && { settings }), queries, width },
    images,
    stored,
    basis: coded?.basis ?? null,
    version,
    async *blocks() {
      const imageBytes = imageBytesOf(stored);
      const wanted = Buffer.from(await readWhole(checks));
      let values = new Float32Array(0);
      for await (const { at, bytes } of readPieces(vectors, imageBytes, Math.max(pieceBytes, imageBytes))) {
        const [first, imagesHere] = [at / imageBytes, bytes.length / imageBytes];
        for (let i = 0; i < imagesHere; i++) {
          const check = checkOf(bytes.subarray(i * imageBytes, (i + 1) * imageBytes));
          const from = (first + i) * checkBytes;
          if (wanted.compare(check, 0, checkBytes, from, from + checkBytes) !== 0) {
            throw damaged(file, `vectors of image ${first + i} with another checksum`);
          }
        }
        if (values.length !== imagesHere * queries * width) values = new Float32Array(imagesHere * queries * width);
        decodeStored(bytes, type, width, values);
        yield { first, images: imagesHere, values, bytes };
      }
    },
  };
}

/** @throws ImageIndexError for codes that do not fit the vectors */
async function readCodes(
  file: string,
  { metadata, tensors }: SafetensorsHeader,
  { images, queries, width }: { readonly images: number; readonly queries: number; readonly width: number },
): Promise<{ readonly codes: StoredCodes; readonly basis: CodeBasis }> {
  const read = codeMetadataSchema.safeParse(metadata);
  if (!read.success) {
    throw damaged(file, `codes without ${read.error.issues.map(({ path }) => path.join(".")).join(", ")}`);
  }
  const bits: CodeBits = read.data.code_bits === "1" ? 1 : 2;
  const piece = Number(read.data.code_piece);
  const codeWidth = Math.ceil(width / 8) * 8;
  const { imageCodes, imageFactors } = codeSizes({ bits, queries, codeWidth });
  const tensorOf = (name: string, bytes: number): StoredTensor => {
    const found = tensors.find((each) => each.name === name);
    if (found?.bytes === bytes) return found;
    throw damaged(file, `${found?.bytes ?? "no"} bytes of ${name} where ${bytes} belong`);
  };
  const parts: Uint8Array[] = [];
  const valuesOf = async (name: string, count: number) => {
    parts.push(await readWhole(tensorOf(name, count * 4)));
    return decodeVectors(parts.at(-1) as Uint8Array, "f32");
  };
  const centres = await valuesOf("centres", queries * width);
  const encoder = await valuesOf("encoder", codeWidth * width);
  const decoder = await valuesOf("decoder", codeWidth * width);
  if (sha256(...parts) !== read.data.basis_sha256) throw damaged(file, "a basis of codes with another checksum");
  const codes: StoredCodes = {
    ...{ bits, codeWidth, piece },
    codes: tensorOf("codes", images * imageCodes).start,
    factors: tensorOf("factors", images * imageFactors).start,
    checks: tensorOf("code_checks", Math.ceil(images / piece) * checkBytes).start,
  };
  return { codes, basis: { bits, queries, width, codeWidth, centres, encoder, decoder } };
}

/** @throws ImageIndexError for settings that are not those of a run */
function readSettings(file: string, text: string | undefined): RunSettings | undefined {
  if (text === undefined) return undefined;
  const read = settingsSchema.safeParse(text);
  if (!read.success) throw damaged(file, "settings that are none");
  return read.data;
}

/** Refuse vectors of another model. @throws ImageIndexError */
export function expectModel({ file, model }: Pick<ImageIndex, "file" | "model">, wanted: IndexModel): void {
  const same = model.digest === wanted.digest && model.queries === wanted.queries && model.width === wanted.width;
  const settingsOf = ({ settings }: IndexModel) => (settings === undefined ? "" : JSON.stringify(settings));
  if (same && model.dtype === wanted.dtype && settingsOf(model) === settingsOf(wanted)) return;
  const name = (each: IndexModel) =>
    [`${each.ref} (${each.digest.slice(0, 12)}) as ${each.dtype}`, flagsOf(each)].filter(Boolean).join(" with ");
  throw new ImageIndexError(
    `${file}: expected an index made with ${name(wanted)}, got one made with ${name(model)}; ` +
      "use that model, type and settings, or another file",
  );
}

/** Settings as a command line gives them; empty for the defaults. */
function flagsOf({ settings: { imageSize, behaviour } = {} }: IndexModel): string {
  const size = imageSize === undefined ? [] : [`--image-size ${imageSize}`];
  return [...size, ...(behaviour === undefined ? [] : [`--behaviour ${behaviour}`])].join(" ");
}

/** Refuse vectors that are stored otherwise. @throws ImageIndexError */
export function expectType({ file, stored }: Pick<ImageIndex, "file" | "stored">, wanted: VectorType): void {
  if (stored.type === wanted) return;
  throw new ImageIndexError(
    `${file}: expected an index with vectors in ${wanted}, got one in ${stored.type}; leave --vectors out, or use another file`,
  );
}

/** @returns null for none. @throws ImageIndexError when it cannot be looked at */
export async function versionOf(file: string): Promise<string | null> {
  try {
    return versionFrom(await stat(file));
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

function sha256(...parts: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}
