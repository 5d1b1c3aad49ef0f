// Safetensors files of random values, written as they are made: memory does not grow with the weights. The values of a tensor
// depend on the seed and its name alone, so that neither shards nor order change them.

import { createHash } from "node:crypto";
import { type FileHandle, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { leavesOf, type NamedTensor, type NameTree } from "../src/weights/names/tensor-names.ts";
import { indexFile, singleFile } from "../src/weights/weight-files.ts";
import { halfBits } from "./kernels/random-values.ts";

export interface RandomWeights {
  readonly type: "F16" | "F32";
  readonly seed: number;
  /** Bytes of tensors in one file at most, but for a tensor that is larger. Left out: one file, without an index. */
  readonly shardBytes?: number;
  /** Told the bytes that are written. */
  readonly onBytes?: (bytes: number) => void;
}

/** What a tensor is filled with: one value, or values between -bound and bound. */
type Filling = { readonly value: number } | { readonly bound: number };
type Filled = NamedTensor & { readonly filling: Filling };

/** Bytes of values that are made, and written, at once. */
const pieceBytes = 4 * 1024 * 1024;
/** Different values of one tensor; a power of two, so that bits of a random word choose one. */
const levels = 4096;

/** Write the weights of a tree into `folder`, and an index where there are shards. @returns bytes of the tensors */
export async function writeRandomWeights(folder: string, names: NameTree, options: RandomWeights): Promise<number> {
  const tensors = filledTensors(names);
  const files = inShards(tensors, options);
  for (const { name, tensors: own } of files) await writeShard(join(folder, name), own, options);
  const total = tensors.reduce((sum, tensor) => sum + bytesOf(tensor, options), 0);
  if (options.shardBytes !== undefined) {
    const places = files.flatMap(({ name, tensors: own }) => own.map((tensor) => [tensor.name, name]));
    const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(places) };
    await writeFile(join(folder, indexFile), JSON.stringify(index, null, 2));
  }
  return total;
}

/** Each tensor once: norms that change nothing, and everything else so small that activations keep their size. */
function filledTensors(names: NameTree): readonly Filled[] {
  const filled = new Map<string, Filled>();
  const add = (tensor: NamedTensor, filling: Filling) => filled.set(tensor.name, { ...tensor, filling });
  for (const leaf of leavesOf(names)) {
    if (leaf.kind === "linear") {
      add(leaf.weight, { bound: Math.sqrt(3 / leaf.inputs) });
      if (leaf.bias !== null) add(leaf.bias, { bound: 0.1 });
    } else if (leaf.kind === "norm") {
      add(leaf.gain, { value: 1 });
      add(leaf.bias, { value: 0 });
    } else if (leaf.kind === "rms-norm") {
      add(leaf.gain, { value: 1 });
    } else if (leaf.kind !== "computed") {
      add(leaf.stored, { bound: 1 });
    }
  }
  return [...filled.values()];
}

function countOf({ shape }: NamedTensor): number {
  return shape.reduce((product, size) => product * size, 1);
}

function bytesOf(tensor: NamedTensor, { type }: RandomWeights): number {
  return countOf(tensor) * (type === "F16" ? 2 : 4);
}

interface Shard {
  readonly name: string;
  readonly tensors: readonly Filled[];
}

function inShards(tensors: readonly Filled[], options: RandomWeights): readonly Shard[] {
  const { shardBytes } = options;
  if (shardBytes === undefined) return [{ name: singleFile, tensors }];
  const groups: Filled[][] = [];
  let filled = Number.POSITIVE_INFINITY;
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor, options);
    filled += bytes;
    if (filled > shardBytes) {
      groups.push([]);
      filled = bytes;
    }
    groups.at(-1)?.push(tensor);
  }
  const five = (number: number) => String(number).padStart(5, "0");
  return groups.map((own, i) => ({
    name: `model-${five(i + 1)}-of-${five(groups.length)}.safetensors`,
    tensors: own,
  }));
}

async function writeShard(file: string, tensors: readonly Filled[], options: RandomWeights): Promise<void> {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor, options);
    header[tensor.name] = { dtype: options.type, shape: tensor.shape, data_offsets: [end, end + bytes] };
    end += bytes;
  }
  // The data begin at a multiple of 8, as the format's own writer has it.
  const text = Buffer.from(JSON.stringify(header));
  const head = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, " ");
  head.writeBigUInt64LE(BigInt(head.length - 8));
  text.copy(head, 8);
  const handle = await open(file, "w");
  try {
    await handle.writeFile(head);
    for (const tensor of tensors) await writeTensor(handle, tensor, options);
  } finally {
    await handle.close();
  }
}

/** While one piece is written, the next one is made. */
async function writeTensor(handle: FileHandle, tensor: Filled, options: RandomWeights): Promise<void> {
  const total = bytesOf(tensor, options);
  const fill = filler(tensor, options);
  const pieces = [0, 1].map(() => new Uint8Array(Math.min(pieceBytes, Math.ceil(total / 4) * 4)));
  let writing: Promise<unknown> = Promise.resolve();
  for (let at = 0, turn = 0; at < total; at += pieceBytes, turn++) {
    const piece = pieces[turn % 2] as Uint8Array;
    fill(piece);
    await writing;
    const bytes = piece.subarray(0, Math.min(piece.length, total - at));
    writing = writeAll(handle, bytes).then(() => options.onBytes?.(bytes.length));
  }
  await writing;
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, at, bytes.length - at);
    at += bytesWritten;
  }
}

/** Fills one piece after another with the tensor's values. */
function filler({ name, filling }: Filled, { type, seed }: RandomWeights): (piece: Uint8Array) => void {
  const isHalf = type === "F16";
  const word = (value: number) => (isHalf ? halfBits(value) : (new Uint32Array(Float32Array.of(value).buffer)[0] ?? 0));
  if ("value" in filling) {
    const bits = word(filling.value);
    return (piece) => wordsOf(piece).fill(isHalf ? bits | (bits << 16) : bits);
  }
  const { bound } = filling;
  const table = Uint32Array.from({ length: levels }, (_, i) => word((bound * (2 * i + 1 - levels)) / levels));
  // xorshift32, started away from 0; its high bits are the better ones.
  let state = createHash("sha256").update(`${seed} ${name}`).digest().readUInt32LE() | 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state;
  };
  return (piece) => {
    const words = wordsOf(piece);
    for (let i = 0; i < words.length; i++) {
      const bits = next();
      const low = table[bits >>> 20] ?? 0;
      words[i] = isHalf ? low | ((table[(bits >>> 8) & (levels - 1)] ?? 0) << 16) : low;
    }
  };
}

function wordsOf({ buffer, byteOffset, byteLength }: Uint8Array): Uint32Array {
  return new Uint32Array(buffer, byteOffset, byteLength / 4);
}
