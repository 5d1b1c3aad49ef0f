// The header of a safetensors file, read with suspicion: 8 bytes of length, JSON, then the data that the JSON describes.
// Format: https://github.com/huggingface/safetensors (no holes, no overlaps, nothing behind the last tensor).

import { open } from "node:fs/promises";
import { WeightsError } from "./errors.ts";

/** One tensor as it lies in its file: row-major, little-endian. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: StoredType;
  readonly shape: readonly number[];
  /** Absolute path. */
  readonly file: string;
  /** Bytes from the start of the file. */
  readonly start: number;
  readonly bytes: number;
}

const typeBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
} as const;

export type StoredType = keyof typeof typeBytes;

/** Bytes; the limit of the format's own reader. */
const longestHeader = 100_000_000;

export interface SafetensorsHeader {
  /** What `__metadata__` says; texts only, others are left out. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: readonly StoredTensor[];
  readonly problems: readonly string[];
}

/**
 * The tensors that a file's header describes, and everything that is wrong with it. Tensors with problems are left out.
 * @param file absolute path
 * @param label how problems name the file
 */
export async function readSafetensorsHeader(file: string, label: string): Promise<SafetensorsHeader> {
  const fails = (expected: string, got: unknown) => ({
    metadata: {},
    tensors: [],
    problems: [`${label}: expected ${expected}, got ${got}`],
  });
  const handle = await open(file, "r");
  try {
    const { size } = await handle.stat();
    if (size < 8) return fails("a header length of 8 bytes", `a file of ${size} bytes`);
    const head = Buffer.alloc(8);
    await handle.read(head, 0, 8, 0);
    const length = head.readBigUInt64LE();
    if (length > BigInt(longestHeader)) return fails(`a header of at most ${longestHeader} bytes`, length);
    if (length > BigInt(size - 8)) return fails(`a header inside the file's ${size} bytes`, `a header of ${length}`);
    const text = Buffer.alloc(Number(length));
    await handle.read(text, 0, text.length, 8);
    let header: unknown;
    try {
      header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
    } catch (cause) {
      return fails("a header in JSON", String(cause instanceof Error ? cause.message : cause));
    }
    if (!isRecord(header)) return fails("a header that is a JSON object", JSON.stringify(header)?.slice(0, 40));
    const given = isRecord(header.__metadata__) ? header.__metadata__ : {};
    const metadata = Object.fromEntries(
      Object.entries(given).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
    );
    return { metadata, ...readEntries(header, file, label, 8 + text.length, size) };
  } finally {
    await handle.close();
  }
}

function readEntries(
  header: Record<string, unknown>,
  file: string,
  label: string,
  dataStart: number,
  fileBytes: number,
): { tensors: StoredTensor[]; problems: string[] } {
  const tensors: StoredTensor[] = [];
  const problems: string[] = [];
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const read = readEntry(entry, fileBytes - dataStart);
    if (typeof read === "string") problems.push(`${label}: ${name}: ${read}`);
    else
      tensors.push({
        name,
        dtype: read.dtype,
        shape: read.shape,
        file,
        start: dataStart + read.from,
        bytes: read.bytes,
      });
  }
  // Only a whole list can be checked for holes.
  if (problems.length > 0) return { tensors, problems };
  const ordered = tensors.filter(({ bytes }) => bytes > 0).sort((a, b) => a.start - b.start);
  let end = dataStart;
  for (const { name, start, bytes } of ordered) {
    const at = start - dataStart;
    if (start < end) {
      problems.push(`${label}: ${name}: expected data from byte ${end - dataStart} on, got an overlap from ${at} on`);
    } else if (start > end) {
      problems.push(`${label}: ${name}: expected data from byte ${end - dataStart} on, got a hole up to ${at}`);
    }
    end = Math.max(end, start + bytes);
  }
  if (end < fileBytes) {
    problems.push(`${label}: expected ${end - dataStart} bytes of data, got ${fileBytes - dataStart}`);
  }
  return { tensors, problems };
}

/** A header's entry, or what is wrong with it. */
function readEntry(
  entry: unknown,
  dataBytes: number,
): { dtype: StoredType; shape: number[]; from: number; bytes: number } | string {
  if (!isRecord(entry)) return `expected dtype, shape and data_offsets, got ${JSON.stringify(entry)?.slice(0, 80)}`;
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(typeBytes, dtype)) {
    return `expected a known dtype, got ${JSON.stringify(dtype)}`;
  }
  if (!isCounts(shape)) return `expected a shape of whole numbers, got ${JSON.stringify(shape)}`;
  if (!isCounts(offsets) || offsets.length !== 2) return `expected two data_offsets, got ${JSON.stringify(offsets)}`;
  const [from = 0, to = 0] = offsets;
  if (from > to) return `expected data_offsets in order, got ${from} to ${to}`;
  if (to > dataBytes) return `expected data inside the file's ${dataBytes} bytes of data, got ${from} to ${to}`;
  const bytes = shape.reduce((product, size) => product * size, typeBytes[dtype as StoredType]);
  if (bytes !== to - from) {
    return `expected ${bytes} bytes for (${shape.join(", ")}) of ${dtype}, got ${to - from}`;
  }
  return { dtype: dtype as StoredType, shape, from, bytes };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && each >= 0);
}

/**
 * The bytes of a tensor in pieces of at most `pieceBytes`, each a whole number of rows of `rowBytes`. A row longer than
 * a piece comes in several pieces.
 * @param place gives the memory for a piece of so many bytes. Left out: one buffer, reused for the next piece
 */
export async function* readPieces(
  tensor: StoredTensor,
  rowBytes: number,
  pieceBytes: number,
  place?: (bytes: number) => Promise<Uint8Array>,
): AsyncGenerator<{ readonly at: number; readonly bytes: Uint8Array }> {
  const whole = rowBytes > pieceBytes ? pieceBytes : Math.max(1, Math.floor(pieceBytes / rowBytes)) * rowBytes;
  const handle = await open(tensor.file, "r");
  try {
    const reused = place ? null : Buffer.alloc(Math.min(whole, tensor.bytes));
    for (let at = 0; at < tensor.bytes; at += whole) {
      const size = Math.min(whole, tensor.bytes - at);
      const buffer = reused ?? ((await place?.(size)) as Uint8Array);
      let filled = 0;
      while (filled < size) {
        const { bytesRead } = await handle.read(buffer, filled, size - filled, tensor.start + at + filled);
        if (bytesRead === 0)
          throw new Error(`${tensor.file}: expected ${tensor.bytes} bytes of ${tensor.name}, got an end`);
        filled += bytesRead;
      }
      yield { at, bytes: buffer.subarray(0, size) };
    }
  } finally {
    await handle.close();
  }
}

/** The value of a tensor of one element. @throws WeightsError for another tensor, or a dtype that is no float */
export async function readScalar(tensor: StoredTensor): Promise<number> {
  const { name, dtype, bytes } = tensor;
  const [value, ...others] = bytes > 4 ? [] : await readValues(tensor);
  if (value !== undefined && others.length === 0) return value;
  throw new WeightsError(name, [`expected one F32, F16 or BF16, got ${bytes} bytes of ${dtype}`]);
}

/** All values of a small tensor, in host memory. @throws WeightsError for a dtype that is no float */
export async function readValues(tensor: StoredTensor): Promise<Float32Array> {
  const { name, dtype, bytes } = tensor;
  const whole = Buffer.alloc(bytes);
  for await (const piece of readPieces(tensor, 1, 1 << 20)) whole.set(piece.bytes, piece.at);
  if (dtype === "F32") return Float32Array.from({ length: bytes / 4 }, (_, i) => whole.readFloatLE(4 * i));
  if (dtype === "F16") return Float32Array.from({ length: bytes / 2 }, (_, i) => halfValue(whole.readUInt16LE(2 * i)));
  if (dtype === "BF16") {
    const bits = Uint32Array.from({ length: bytes / 2 }, (_, i) => whole.readUInt16LE(2 * i) << 16);
    return new Float32Array(bits.buffer);
  }
  throw new WeightsError(name, [`expected F32, F16 or BF16, got ${dtype}`]);
}

function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}
