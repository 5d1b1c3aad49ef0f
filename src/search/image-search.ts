// The images of an index with the largest scores: all compared exactly, or in two steps, of which the first looks at codes.
//
//     bounds     from the codes of every image: what its score hardly exceeds (`deviations` of the estimate's error)
//     threshold  the images with the largest bounds are compared exactly; the last of the wanted ones gives the threshold
//     rest       every other image whose bound reaches the threshold is compared exactly
//
// So an image that belongs among the results is missed only where its estimate is that far off, and how many images are
// compared follows from the vectors: where many are nearly alike it takes longer. The scores are those of the exact way.

import { type CodeBasis, codeQuery } from "./codes.ts";
import { Largest, type Scored } from "./largest.ts";
import { imagesAtOnce, type SearchOutcome } from "./search-tasks.ts";
import { SearchThreads } from "./search-threads.ts";
import type { SearchQuery } from "./similarity.ts";
import type { StoredIndex } from "./vector-file-format.ts";

/** Errors of an estimate are normally distributed; beyond three deviations, one of 740 lies on the wrong side. */
const deviations = 3;
/** Images that give the threshold, for each that is wanted. */
const firstForEach = 4;
/** Results wanted are at most this part of all images, else codes leave too little out. */
const leastPart = 1 / 64;
/** Bytes of bounds that are in memory at once. */
const boundBytes = 256 * 1024 * 1024;

export interface SearchOptions {
  /** Results for each query. */
  readonly most: number;
  /** Compare all images, though there are codes. */
  readonly exact?: boolean;
  readonly signal?: AbortSignal;
}

export interface SearchAnswer {
  /** By query, the largest first; of equal ones the lower place. */
  readonly found: readonly (readonly Scored[])[];
  /** Images that were compared exactly, by query. */
  readonly compared: readonly number[];
  readonly by: "all images" | "codes";
}

/** What is searched: an open index, or what a test gives. */
export interface SearchedIndex {
  readonly stored: StoredIndex;
  readonly basis: CodeBasis | null;
}

/** Threads over one index, for any number of searches. */
export class ImageSearch {
  readonly #index: SearchedIndex;
  readonly #threads: SearchThreads;
  /** Pieces of codes whose checks have been compared. */
  readonly #checked: SharedArrayBuffer;

  constructor(index: SearchedIndex) {
    const { images, codes } = index.stored;
    this.#index = index;
    this.#threads = new SearchThreads(index.stored);
    this.#checked = new SharedArrayBuffer(codes === null ? 0 : Math.ceil(images / codes.piece));
  }

  /** @throws ImageIndexError for a damaged index; the signal's reason */
  async search(queries: readonly SearchQuery[], { most, exact = false, signal }: SearchOptions): Promise<SearchAnswer> {
    signal?.throwIfAborted();
    const stop = () => void this.#threads.close(signal?.reason);
    signal?.addEventListener("abort", stop);
    try {
      const { stored, basis } = this.#index;
      const byCodes = !exact && basis !== null && most <= stored.images * leastPart;
      return await (byCodes ? this.#byCodes(basis, queries, most) : this.#compareAll(queries, most));
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  close(): Promise<void> {
    return this.#threads.close();
  }

  async #compareAll(queries: readonly SearchQuery[], most: number): Promise<SearchAnswer> {
    const { images } = this.#index.stored;
    const pieces = Math.ceil(images / imagesAtOnce);
    const outcomes = await this.#threads.run({ kind: "compare", queries, most }, pieces);
    const found = queries.map((_, q) => merged(outcomes, q, most));
    return { found, compared: queries.map(() => images), by: "all images" };
  }

  async #byCodes(basis: CodeBasis, queries: readonly SearchQuery[], most: number): Promise<SearchAnswer> {
    const { images } = this.#index.stored;
    const atOnce = Math.max(1, Math.floor(boundBytes / (images * 4)));
    const [found, compared]: [Scored[][], number[]] = [[], []];
    for (let first = 0; first < queries.length; first += atOnce) {
      const some = queries.slice(first, first + atOnce);
      const bounds = new SharedArrayBuffer(some.length * images * 4);
      const coded = some.map((vectors) => vectors.map((vector) => codeQuery(basis, vector, deviations)));
      const task = { kind: "bound", queries: coded, bounds, checked: this.#checked } as const;
      await this.#threads.run(task, this.#checked.byteLength);
      for (const [q, query] of some.entries()) {
        const answer = await this.#compareBest(query, new Float32Array(bounds, q * images * 4, images), most);
        found.push([...answer.found]);
        compared.push(answer.compared);
      }
    }
    return { found, compared, by: "codes" };
  }

  /** @param bounds of all images */
  async #compareBest(
    query: SearchQuery,
    bounds: Float32Array,
    most: number,
  ): Promise<{ readonly found: readonly Scored[]; readonly compared: number }> {
    const first = new Largest(most * firstForEach);
    for (let place = 0; place < bounds.length; place++) first.add(bounds[place] as number, place);
    const places = first.inOrder.map(({ place }) => place);
    const best = new Largest(most);
    await this.#compare(query, places, best);
    const threshold = best.inOrder[most - 1]?.score ?? Number.NEGATIVE_INFINITY;
    const done = new Set(places);
    const rest: number[] = [];
    for (let place = 0; place < bounds.length; place++) {
      if ((bounds[place] as number) >= threshold && !done.has(place)) rest.push(place);
    }
    await this.#compare(query, rest, best);
    return { found: best.inOrder, compared: places.length + rest.length };
  }

  async #compare(query: SearchQuery, places: readonly number[], best: Largest): Promise<void> {
    const ascending = Int32Array.from(places).sort();
    const scores = new SharedArrayBuffer(ascending.length * 4);
    const task = { kind: "score", query, places: ascending, scores } as const;
    await this.#threads.run(task, Math.ceil(ascending.length / imagesAtOnce));
    for (const [i, score] of new Float32Array(scores).entries()) best.add(score, ascending[i] as number);
  }
}

/** What all threads found for a query. */
function merged(outcomes: readonly SearchOutcome[], query: number, most: number): readonly Scored[] {
  const largest = new Largest(most);
  for (const outcome of outcomes) {
    for (const { score, place } of outcome[query] ?? []) largest.add(score, place);
  }
  return largest.inOrder;
}
