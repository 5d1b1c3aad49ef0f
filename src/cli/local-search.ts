// Texts and images against an index, in this process: the images with the largest scores, and for texts the best few of
// them read again and matched.

import { type Candidate, encodeImage, featuresOf, rerank } from "../matching.ts";
import { ImageSearch, type SearchAnswer } from "../search/image-search.ts";
import type { Scored } from "../search/largest.ts";
import { type SearchQuery, vectorRows } from "../search/similarity.ts";
import { expectModel, type ImageIndex, openImageIndex } from "../search/vector-file.ts";
import type { IndexedImage } from "../search/vector-file-format.ts";
import type { Activation } from "../stages.ts";
import { describeError, UsageError } from "./errors.ts";
import { readImageFile } from "./image-files.ts";
import { bytesOf } from "./indexed-images.ts";
import { indexModel } from "./local-indexing.ts";
import { chooseLocalModel, type LocalModel, type RetrievalRun, withRetrieval } from "./local-model.ts";
import type { ModelFlags } from "./model-options.ts";
import { Progress } from "./progress.ts";

/** One line of output. */
export type SearchResult = {
  /** From 1. */
  readonly rank: number;
  /** Absolute path. */
  readonly image: string;
  readonly indexed: IndexedImage;
} & (TextScores | ImageScore);

export interface TextScores {
  readonly text: string;
  readonly itc: number;
  /** null where the image was not matched with the text. */
  readonly itm: number | null;
  /** Why it was not, though it should have been. */
  readonly error?: { readonly type: string; readonly message: string };
}

export interface ImageScore {
  /** The image that was searched with, as it was named. */
  readonly like: string;
  /** imageScores() of both; the model defines none. */
  readonly similarity: number;
}

export interface LocalSearch {
  readonly texts: readonly string[];
  /** Image files, after the texts. */
  readonly images: readonly string[];
  readonly file: string;
  readonly top: number;
  readonly rerank: number;
  /** Compare all images, though there are codes. */
  readonly exact: boolean;
  readonly model: ModelFlags;
}

export interface SearchSummary {
  /** Images in the index. */
  readonly images: number;
  readonly by: SearchAnswer["by"];
  /** Images that were compared exactly, of the query with the most. */
  readonly compared: number;
  /** Results with an error. */
  readonly failures: number;
  /** Whose vectors they are. */
  readonly model: string;
}

/** Images whose features are kept from text to text: some hundred MB of the largest models. */
const keptFeatures = 128;

/**
 * Run, handing all results of each query to `emit`, in the order of the queries, texts first.
 * @throws UsageError, ImageIndexError, TextError, ImageError, what keeps a model from being loaded; InterruptedError after
 * Ctrl-C
 */
export async function searchLocally(
  search: LocalSearch,
  emit: (results: readonly SearchResult[]) => void,
): Promise<SearchSummary> {
  const index = await openImageIndex(search.file);
  if (index === null) {
    throw new UsageError(`--index: expected a file made by \`blipfleet index\`, got no such file ${search.file}`);
  }
  const { texts, images: examples } = search;
  const files = await Promise.all(examples.map(readImageFile));
  const model = await modelFor(search.model, index);
  const isEncoding = examples.length > 0 || (texts.length > 0 && search.rerank > 0);
  const stages = isEncoding ? (["encode", "query"] as const) : (["query"] as const);
  return withRetrieval(model, { stages, interrupted: "stopped before all was searched for" }, async (run) => {
    expectModel(index, indexModel(model.ref, run.stages.card));
    const ids = await Promise.all(texts.map((text) => run.stages.tokenize(text)));
    const queries = await Promise.all([
      ...ids.map((textIds) => run.stages.queryText(textIds, { signal: run.signal })),
      ...files.map(async (bytes) => (await encodeImage(run.stages, bytes, { signal: run.signal })).vectors),
    ]);
    const { found, compared, by } = await nearest(run, index, queries.map(vectorRows), search);
    const images = new IndexedImages(run, index);
    const progress = new Progress(texts.length, { noun: "texts" });
    let failures = 0;
    for (const [i, text] of texts.entries()) {
      const results = await ordered(run, images, search, { text, ids: ids[i] ?? [], found: found[i] ?? [] });
      failures += results.filter(({ error }) => error !== undefined).length;
      emit(results);
      progress.add(false);
    }
    progress.finish();
    for (const [i, like] of examples.entries()) {
      const places = found[texts.length + i]?.slice(0, search.top) ?? [];
      emit(places.map(({ score, place }, rank) => ({ like, similarity: score, ...images.result(place, rank) })));
    }
    const { ref } = index.model;
    return { images: index.images.length, by, compared: Math.max(0, ...compared), failures, model: ref };
  });
}

/** The model that made the index, or what --model and --dtype say it is. @throws UsageError */
async function modelFor(flags: ModelFlags, { file, model }: ImageIndex): Promise<LocalModel> {
  if (flags.dtype !== "auto" && flags.dtype !== model.dtype) {
    throw new UsageError(`--dtype: expected ${model.dtype}, the type that ${file} was made with, got ${flags.dtype}`);
  }
  if (flags.model === undefined) return { ref: model.ref, dtype: model.dtype };
  return chooseLocalModel({ ...flags, dtype: model.dtype }, "retrieval");
}

/** The images with the largest scores of each query. */
async function nearest(
  { signal }: RetrievalRun,
  index: ImageIndex,
  queries: readonly SearchQuery[],
  { top, rerank: matched, exact }: LocalSearch,
): Promise<SearchAnswer> {
  const threads = new ImageSearch(index);
  try {
    return await threads.search(queries, { most: Math.max(top, matched), exact, signal });
  } finally {
    await threads.close();
  }
}

/** The results of one text: those that were matched first. */
async function ordered(
  { stages, signal }: RetrievalRun,
  images: IndexedImages,
  search: LocalSearch,
  { text, ids, found }: { readonly text: string; readonly ids: readonly number[]; readonly found: readonly Scored[] },
): Promise<(SearchResult & TextScores)[]> {
  const candidates = found.slice(0, search.rerank).map(({ score: itc, place }): Candidate & { place: number } => ({
    ...{ itc, place },
    features: () => images.features(place),
  }));
  const matched = (await rerank(stages, candidates, ids, { signal })).map((each) => {
    const { place, itc } = each.candidate;
    const outcome = "error" in each ? { itm: null, error: describeError(each.error) } : { itm: each.itm };
    return { place, itc, ...outcome };
  });
  const rest = found.slice(search.rerank).map(({ score: itc, place }) => ({ place, itc, itm: null }));
  return [...matched, ...rest]
    .slice(0, search.top)
    .map(({ place, ...scores }, rank) => ({ text, ...scores, ...images.result(place, rank) }));
}

/** The images of an index, read again where they are to be matched. */
class IndexedImages {
  readonly #run: RetrievalRun;
  readonly #index: ImageIndex;
  /** By place; least recently used first. */
  readonly #features = new Map<number, Promise<Activation>>();

  constructor(run: RetrievalRun, index: ImageIndex) {
    this.#run = run;
    this.#index = index;
  }

  /** What every result says of its image. @param rank from 0 */
  result(place: number, rank: number): Pick<SearchResult, "rank" | "image" | "indexed"> {
    const indexed = this.#index.images.at(place);
    return { rank: rank + 1, image: indexed.images[0] ?? "", indexed };
  }

  /** @throws ImageError when no file has these bytes any more */
  features(place: number): Promise<Activation> {
    const known = this.#features.get(place);
    const made = known ?? this.#encode(place);
    this.#features.delete(place);
    this.#features.set(place, made);
    for (const oldest of this.#features.keys()) {
      if (this.#features.size <= keptFeatures) break;
      this.#features.delete(oldest);
    }
    return made;
  }

  async #encode(place: number): Promise<Activation> {
    const { stages, signal } = this.#run;
    return featuresOf(stages, await bytesOf(this.#index.images.at(place)), { signal });
  }
}
