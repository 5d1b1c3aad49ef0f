// What the threads of a search are asked to do; all of it crosses threads.

import type { CodeBasis, CodeQuery } from "./codes.ts";
import type { Scored } from "./largest.ts";
import type { SearchQuery } from "./similarity.ts";

/** Bounds of the scores of queries, from the codes of all images. A piece is what one check of the codes covers. */
export interface BoundTask {
  readonly kind: "bound";
  readonly queries: readonly (readonly CodeQuery[])[];
  /** f32, (queries, images); written. */
  readonly bounds: SharedArrayBuffer;
  /** A byte for each piece: 1 once its check has been compared. */
  readonly checked: SharedArrayBuffer;
}

/** The scores of a query with some images. A piece is `imagesAtOnce` of them. */
export interface ScoreTask {
  readonly kind: "score";
  readonly query: SearchQuery;
  /** Ascending. */
  readonly places: Int32Array;
  /** f32, one for each place; written. */
  readonly scores: SharedArrayBuffer;
}

/** The largest scores of queries over all images. A piece is `imagesAtOnce` consecutive ones. */
export interface CompareTask {
  readonly kind: "compare";
  readonly queries: readonly SearchQuery[];
  readonly most: number;
}

/** Codes of all images, written into the file. A piece is what one check covers. */
export interface EncodeTask {
  readonly kind: "encode";
  readonly basis: CodeBasis;
  /** The checks of the pieces; written. */
  readonly checks: SharedArrayBuffer;
}

export type SearchTask = BoundTask | ScoreTask | CompareTask | EncodeTask;

/** Of each thread: what it found, by query; nothing where results are written into shared memory. */
export type SearchOutcome = readonly (readonly Scored[])[];

/** Images whose vectors a thread reads and compares together. */
export const imagesAtOnce = 64;

export interface ToSearchThread {
  readonly task: SearchTask;
  readonly pieces: number;
  /** An i32: the next piece that no thread has taken. */
  readonly next: SharedArrayBuffer;
}

export type FromSearchThread =
  | { readonly outcome: SearchOutcome }
  | { readonly error: { readonly name: string; readonly message: string } };
