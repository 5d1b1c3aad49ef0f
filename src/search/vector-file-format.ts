// An index of images: the vectors of each distinct image, in one file.
//
// The file is a safetensors file, so that any tool can read it:
//
//     vectors      (images, queries, width) F32, F16 or I8: unit vectors; of I8 the directions (int8-vectors.ts)
//     checks       (images, 8) U8: the first bytes of the SHA-256 of each image's vectors as they are stored
//     images       bytes of text, one JSON line per image, in the order of `vectors`:
//                  {"digest": hex SHA-256 of the image file, "images": [absolute paths that had these bytes]}
//     __metadata__ format: "blipfleet image index 2"; model, model_digest, dtype of its run; settings, a JSON object, where it
//                  was not run as the checkpoint is; images_sha256
//
// and in large ones (codes.ts):
//
//     codes        (images, blocks, code bytes, 16) U8: a block is 16 vectors of an image, a column one of them
//     factors      (images, blocks * 16) BF16
//     code_checks  (pieces, 8) U8: the first bytes of the SHA-256 of the codes and factors of `code_piece` images
//     centres, encoder, decoder   F32: the basis of the codes
//     __metadata__ code_bits, code_piece, basis_sha256 as well
//
// The header is padded to 4096 bytes and written last, so that vectors can be written while they are made.

import { createHash } from "node:crypto";
import { z } from "zod";
import type { Dtype, RunSettings, Vectors } from "../stages.ts";
import type { StoredType } from "../weights/safetensors.ts";
import { type CodeBasis, type CodeBits, codeSizes } from "./codes.ts";
import { quantizeVectors, unitVectors } from "./int8-vectors.ts";
import { decodeVectors, vectorValues } from "./similarity.ts";

export const format = "blipfleet image index 2";
/** Bytes of length and header together. */
export const headerBytes = 4096;
/** Bytes of a check. */
export const checkBytes = 8;

/** Whose vectors they are. Vectors of different models, or of one model under different types, cannot be compared. */
export interface IndexModel {
  /** Hugging Face id or absolute path; names the model to people, and is what `search` loads unasked. */
  readonly ref: string;
  readonly digest: string;
  readonly dtype: Dtype;
  /** How the model was run; left out: as the checkpoint is. */
  readonly settings?: RunSettings;
  readonly queries: number;
  readonly width: number;
}

export interface IndexedImage {
  /** Hex SHA-256 of the image file. */
  readonly digest: string;
  /** Absolute paths, at least one. */
  readonly images: readonly string[];
}

export const imageLine = z.object({ digest: z.string().regex(/^[0-9a-f]{64}$/), images: z.array(z.string()).min(1) });

/** How vectors are stored. */
export type VectorType = "f32" | "f16" | "int8";

export const storedTypes: Readonly<Record<VectorType, { readonly name: StoredType; readonly bytes: number }>> = {
  f32: { name: "F32", bytes: 4 },
  f16: { name: "F16", bytes: 2 },
  int8: { name: "I8", bytes: 1 },
};

/** Where the parts of an index lie in its file, in bytes from its start; plain JSON that crosses threads. */
export interface StoredIndex {
  /** Absolute path. */
  readonly file: string;
  /** Of the file, null while it is written. */
  readonly version: string | null;
  readonly images: number;
  readonly queries: number;
  readonly width: number;
  readonly type: VectorType;
  readonly vectors: number;
  readonly checks: number;
  readonly codes: StoredCodes | null;
}

export interface StoredCodes {
  readonly bits: CodeBits;
  readonly codeWidth: number;
  /** Images under one check. */
  readonly piece: number;
  readonly codes: number;
  readonly factors: number;
  readonly checks: number;
}

/** Bytes of the vectors of one image. */
export function imageBytesOf({ queries, width, type }: Pick<StoredIndex, "queries" | "width" | "type">): number {
  return queries * width * storedTypes[type].bytes;
}

/** Bytes of codes that are read, checked and scanned together. */
const pieceBytes = 1024 * 1024;

/** Images whose codes are under one check. */
export function imagesInPiece(basis: Pick<CodeBasis, "bits" | "queries" | "codeWidth">): number {
  return Math.max(1, Math.floor(pieceBytes / codeSizes(basis).imageCodes));
}

/** An image's vectors as they are stored. @param type that of the vectors, or int8 */
export function encodeStored(vectors: Vectors, type: VectorType): Uint8Array {
  if (type !== "int8") return vectors.bytes;
  return new Uint8Array(quantizeVectors(vectorValues(vectors), vectors.shape[1]).buffer);
}

/** Stored vectors as unit vectors. @param into (vectors, width) */
export function decodeStored(bytes: Uint8Array, type: VectorType, width: number, into: Float32Array): void {
  if (type !== "int8") decodeVectors(bytes, type, into);
  else unitVectors(new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length), width, into);
}

/** The first bytes of the SHA-256 of some bytes. */
export function checkOf(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest().subarray(0, checkBytes);
}

/** Of a file, from its stat; changes when the file is replaced. */
export function versionFrom({ ino, size, mtimeMs }: { ino: number; size: number; mtimeMs: number }): string {
  return `${ino} ${size} ${mtimeMs}`;
}
