// A thread of a search: takes one piece of an index after the other, until none is left.

import { closeSync, openSync, writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { type CodeScan, codeScan } from "./code-programs.ts";
import { codeSizes, Encoder } from "./codes.ts";
import { Largest } from "./largest.ts";
import { NearScores } from "./near-scores.ts";
import {
  type BoundTask,
  type CompareTask,
  type EncodeTask,
  type FromSearchThread,
  imagesAtOnce,
  type ScoreTask,
  type SearchOutcome,
  type SearchTask,
  type ToSearchThread,
} from "./search-tasks.ts";
import { imageScores } from "./similarity.ts";
import { damaged, StoredVectors } from "./stored-vectors.ts";
import { checkBytes, checkOf, type StoredCodes, type StoredIndex } from "./vector-file-format.ts";
import { wasmMemory } from "./wasm.ts";

const stored = workerData as StoredIndex;
let opened: StoredVectors | undefined;
let scanner: CodeScanner | undefined;

parentPort?.on("message", ({ task, pieces, next }: ToSearchThread) => {
  let message: FromSearchThread;
  try {
    opened ??= new StoredVectors(stored);
    const counter = new Int32Array(next);
    message = { outcome: perform(opened, task, takeFrom(counter, pieces)) };
  } catch (error) {
    const { name, message: said } = error instanceof Error ? error : new Error(String(error));
    message = { error: { name, message: said } };
  }
  parentPort?.postMessage(message);
});

/** Pieces that no other thread has. */
function* takeFrom(counter: Int32Array, pieces: number): Generator<number> {
  for (;;) {
    const piece = Atomics.add(counter, 0, 1);
    if (piece >= pieces) return;
    yield piece;
  }
}

function perform(vectors: StoredVectors, task: SearchTask, pieces: Iterable<number>): SearchOutcome {
  switch (task.kind) {
    case "bound":
      scanner ??= new CodeScanner(vectors);
      for (const piece of pieces) scanner.bound(task, piece);
      return [];
    case "score":
      for (const piece of pieces) score(vectors, task, piece);
      return [];
    case "compare":
      return compare(vectors, task, pieces);
    case "encode":
      encode(vectors, task, pieces);
      return [];
  }
}

/** The codes that this thread looks at, in the memory of the program that does. */
class CodeScanner {
  readonly #vectors: StoredVectors;
  readonly #codes: StoredCodes;
  readonly #memory;
  readonly #scan: (scan: CodeScan) => void;
  /** Where in the memory each part begins, and sizes. */
  readonly #parts;

  constructor(vectors: StoredVectors) {
    const { codes, queries, file } = vectors.stored;
    if (codes === null) throw damaged(file, "no codes");
    const { blocks, codeBytes, imageCodes, imageFactors } = codeSizes({ ...codes, queries });
    const tables = 0;
    const starts = codeBytes * 2 * 16;
    const codesAt = starts + blocks * 16 * 4;
    const factors = codesAt + codes.piece * imageCodes;
    const out = factors + codes.piece * imageFactors;
    this.#vectors = vectors;
    this.#codes = codes;
    this.#parts = { tables, starts, codes: codesAt, factors, out, blocks, bytes: codeBytes, imageCodes, imageFactors };
    this.#memory = wasmMemory(out + codes.piece * 4);
    this.#scan = codeScan(this.#memory);
  }

  bound({ queries, bounds, checked }: BoundTask, piece: number): void {
    const { images: all, file } = this.#vectors.stored;
    const { imageCodes, imageFactors, ...parts } = this.#parts;
    const first = piece * this.#codes.piece;
    const images = Math.min(this.#codes.piece, all - first);
    const { buffer } = this.#memory;
    const codes = new Uint8Array(buffer, parts.codes, images * imageCodes);
    const factors = new Uint8Array(buffer, parts.factors, images * imageFactors);
    this.#vectors.readBytes(codes, this.#codes.codes + first * imageCodes);
    this.#vectors.readBytes(factors, this.#codes.factors + first * imageFactors);
    const flags = new Uint8Array(checked);
    if (flags[piece] === 0) {
      const wanted = new Uint8Array(checkBytes);
      this.#vectors.readBytes(wanted, this.#codes.checks + piece * checkBytes);
      if (Buffer.compare(wanted, checkOf(codes, factors)) !== 0) {
        throw damaged(file, `codes of images from ${first} on with another checksum`);
      }
      flags[piece] = 1;
    }
    const scanned = new Float32Array(buffer, parts.out, images);
    for (const [q, vectors] of queries.entries()) {
      const sums = new Float32Array(bounds, (q * all + first) * 4, images);
      for (const { tables, starts, scale, offset } of vectors) {
        new Uint8Array(buffer, parts.tables, tables.length).set(tables);
        new Float32Array(buffer, parts.starts, starts.length).set(starts);
        this.#scan({ ...parts, images, scale, offset });
        for (let i = 0; i < images; i++) sums[i] = (sums[i] as number) + (scanned[i] as number) / vectors.length;
      }
    }
  }
}

const sizesOf = ({ queries, width }: StoredIndex, images: number) => ({ images, queries, width });

function score(vectors: StoredVectors, { query, places, scores }: ScoreTask, piece: number): void {
  const { queries, width } = vectors.stored;
  const first = piece * imagesAtOnce;
  const here = places.subarray(first, first + imagesAtOnce);
  const values = new Float32Array(here.length * queries * width);
  for (let from = 0; from < here.length; ) {
    let to = from + 1;
    while (to < here.length && here[to] === (here[to - 1] as number) + 1) to += 1;
    vectors.read(here[from] as number, to - from, values.subarray(from * queries * width));
    from = to;
  }
  new Float32Array(scores).set(imageScores(values, sizesOf(vectors.stored, here.length), [query]), first);
}

function compare(vectors: StoredVectors, { queries, most }: CompareTask, pieces: Iterable<number>): SearchOutcome {
  const { images: all, queries: slots, width } = vectors.stored;
  const largest = queries.map(() => new Largest(most));
  const values = new Float32Array(imagesAtOnce * slots * width);
  const near = new NearScores(sizesOf(vectors.stored, imagesAtOnce), queries);
  const one = sizesOf(vectors.stored, 1);
  for (const piece of pieces) {
    const first = piece * imagesAtOnce;
    const images = Math.min(imagesAtOnce, all - first);
    vectors.read(first, images, values);
    const scores = near.of(values, images);
    for (const [q, each] of largest.entries()) {
      for (let i = 0; i < images; i++) {
        if ((scores[q * images + i] as number) + near.error < each.least) continue;
        const image = values.subarray(i * slots * width, (i + 1) * slots * width);
        const [score = Number.NaN] = imageScores(image, one, queries.slice(q, q + 1));
        each.add(score, first + i);
      }
    }
  }
  return largest.map(({ inOrder }) => inOrder);
}

function encode(vectors: StoredVectors, { basis, checks }: EncodeTask, pieces: Iterable<number>): void {
  const { images: all, codes, file } = vectors.stored;
  if (codes === null) throw damaged(file, "no room for codes");
  const { imageCodes, imageFactors } = codeSizes(basis);
  const encoder = new Encoder(basis);
  const values = new Float32Array(codes.piece * basis.queries * basis.width);
  const size = basis.queries * basis.width;
  const output = openSync(file, "r+");
  try {
    for (const piece of pieces) {
      const first = piece * codes.piece;
      const images = Math.min(codes.piece, all - first);
      vectors.read(first, images, values);
      const codeBytes = new Uint8Array(images * imageCodes);
      const factorBytes = new Uint8Array(images * imageFactors);
      for (let i = 0; i < images; i++) {
        encoder.encode(
          values.subarray(i * size, (i + 1) * size),
          codeBytes.subarray(i * imageCodes, (i + 1) * imageCodes),
          new Uint16Array(factorBytes.buffer, i * imageFactors, imageFactors / 2),
        );
      }
      writeAll(output, codeBytes, codes.codes + first * imageCodes);
      writeAll(output, factorBytes, codes.factors + first * imageFactors);
      new Uint8Array(checks).set(checkOf(codeBytes, factorBytes), piece * checkBytes);
    }
  } finally {
    closeSync(output);
  }
}

function writeAll(file: number, bytes: Uint8Array, at: number): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done, bytes.length - done, at + done);
}
