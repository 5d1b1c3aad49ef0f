// Texts and images against an index, in this process: the images with the largest scores, and for texts the best few of
// them read again and matched.

import { type Candidate, encodeImage, featuresOf, rerank } from "../matching.ts";
import { purposesOf } from "../models/model-card.ts";
import { ImageSearch, type SearchAnswer } from "../search/image-search.ts";
import type { Scored } from "../search/largest.ts";
import { type SearchQuery, vectorRows } from "../search/similarity.ts";
import { expectModel, type ImageIndex, openImageIndex } from "../search/vector-file.ts";
import type { IndexedImage } from "../search/vector-file-format.ts";
import type { Activation, ContrastStages } from "../stages.ts";
import { together } from "../together.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import { describeError, UsageError } from "./errors.ts";
import { insteadOfFolder, namingFile, readImageFile } from "./image-files.ts";
import { bytesOf } from "./indexed-images.ts";
import { indexModel } from "./indexing-update.ts";
import { chooseLocalModel, type LocalModel, type ModelRun, withModel } from "./local-model.ts";
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
  /** Images matched for each text, if the caller says so; else `defaultRerank`, or none with a model that cannot match. */
  readonly rerank?: number;
  readonly defaultRerank: number;
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
  const files = await together(examples.map((file) => readImageFile(file, insteadOfFolder.file)));
  const model = await modelFor(search.model, index);
  const matched = texts.length === 0 ? 0 : await matchedImages(search, model.ref);
  const stages = examples.length > 0 || matched > 0 ? (["encode", "query"] as const) : (["query"] as const);
  const interrupted = "stopped before all was searched for";
  const what = { files, most: Math.max(search.top, matched), emit };
  if (matched === 0) {
    const request = { ...model, purpose: "vectors", stages } as const;
    return withModel(request, interrupted, (run) => searchWith(run, index, search, { ...what, order: asFound }));
  }
  const request = { ...model, purpose: "matches", stages } as const;
  return withModel(request, interrupted, (run) =>
    searchWith(run, index, search, { ...what, order: matchedFirst(run, index, matched) }),
  );
}

/** What is needed of a run to find images by their vectors. */
interface VectorRun {
  readonly stages: ContrastStages;
  readonly signal: AbortSignal;
}

/** An image of the index, with its scores for a text. */
type Ranked = Omit<TextScores, "text"> & { readonly place: number };

/** What was found of a text, as it is to be shown. */
type Order = (found: readonly Scored[], textIds: readonly number[]) => Promise<readonly Ranked[]>;

/** @param what files: of search.images; most: images to find of each query; order: of those found by a text */
async function searchWith(
  run: VectorRun,
  index: ImageIndex,
  { texts, images: examples, top, exact }: LocalSearch,
  what: {
    readonly files: readonly Uint8Array[];
    readonly most: number;
    readonly order: Order;
    readonly emit: (results: readonly SearchResult[]) => void;
  },
): Promise<SearchSummary> {
  const { stages, signal } = run;
  const { files, most, order, emit } = what;
  expectModel(index, indexModel(stages.card.ref, stages.card));
  const ids = await together(texts.map((text) => stages.tokenize(text)));
  const queries = await together([
    ...ids.map((textIds) => stages.queryText(textIds, { signal })),
    ...files.map((bytes, i) =>
      namingFile(examples[i] ?? "", async () => (await encodeImage(stages, bytes, { signal })).vectors),
    ),
  ]);
  const { found, compared, by } = await nearest(index, queries.map(vectorRows), { most, exact, signal });
  const progress = new Progress(texts.length, { noun: "texts" });
  let failures = 0;
  for (const [i, text] of texts.entries()) {
    const ranked = (await order(found[i] ?? [], ids[i] ?? [])).slice(0, top);
    failures += ranked.filter(({ error }) => error !== undefined).length;
    emit(ranked.map(({ place, ...scores }, rank) => ({ text, ...scores, ...imageAt(index, place, rank) })));
    progress.add(false);
  }
  progress.finish();
  for (const [i, like] of examples.entries()) {
    const places = found[texts.length + i]?.slice(0, top) ?? [];
    emit(places.map(({ score, place }, rank) => ({ like, similarity: score, ...imageAt(index, place, rank) })));
  }
  const { ref } = index.model;
  return { images: index.images.length, by, compared: Math.max(0, ...compared), failures, model: ref };
}

/** What every result says of its image. @param rank from 0 */
function imageAt(index: ImageIndex, place: number, rank: number): Pick<SearchResult, "rank" | "image" | "indexed"> {
  const indexed = index.images.at(place);
  return { rank: rank + 1, image: indexed.images[0] ?? "", indexed };
}

/** The model that made the index, or what --model and --dtype say it is. @throws UsageError */
async function modelFor(
  flags: ModelFlags,
  { file, model }: ImageIndex,
): Promise<Pick<LocalModel<"vectors">, "ref" | "dtype" | "settings">> {
  if (flags.dtype !== "auto" && flags.dtype !== model.dtype) {
    throw new UsageError(`--dtype: expected ${model.dtype}, the type that ${file} was made with, got ${flags.dtype}`);
  }
  const { ref, dtype, settings = {} } = model;
  if (flags.model === undefined) return { ref, dtype, settings };
  return { ...(await chooseLocalModel({ ...flags, dtype }, "vectors")), settings };
}

/** How many images are matched with each text. @throws UsageError when some should be and the model cannot */
async function matchedImages({ rerank, defaultRerank }: LocalSearch, ref: string): Promise<number> {
  if (rerank === 0) return 0;
  if ((await purposesOf(await openCheckpoint(ref))).includes("matches")) return rerank ?? defaultRerank;
  if (rerank === undefined) return 0;
  throw new UsageError(`--rerank: expected 0 with ${ref}, which has no matching head, got ${rerank}`);
}

/** The images with the largest scores of each query. */
async function nearest(
  index: ImageIndex,
  queries: readonly SearchQuery[],
  options: { readonly most: number; readonly exact: boolean; readonly signal: AbortSignal },
): Promise<SearchAnswer> {
  const threads = new ImageSearch(index);
  try {
    return await threads.search(queries, options);
  } finally {
    await threads.close();
  }
}

/** By cosine alone. */
const asFound: Order = async (found) => found.map(({ score: itc, place }) => ({ place, itc, itm: null }));

/** The first `most` are matched with the text, ordered anew, and come first. */
function matchedFirst(run: ModelRun<"matches">, index: ImageIndex, most: number): Order {
  const { stages, signal } = run;
  const images = new IndexedImages(run, index);
  return async (found, textIds) => {
    const candidates = found.slice(0, most).map(({ score: itc, place }): Candidate & { place: number } => ({
      ...{ itc, place },
      features: () => images.features(place),
    }));
    const matched = (await rerank(stages, candidates, textIds, { signal })).map((each): Ranked => {
      const { place, itc } = each.candidate;
      const outcome = "error" in each ? { itm: null, error: describeError(each.error) } : { itm: each.itm };
      return { place, itc, ...outcome };
    });
    return [...matched, ...(await asFound(found.slice(most), textIds))];
  };
}

/** The images of an index, read again where they are to be matched. */
class IndexedImages {
  readonly #run: VectorRun;
  readonly #index: ImageIndex;
  /** By place; least recently used first. */
  readonly #features = new Map<number, Promise<Activation>>();

  constructor(run: VectorRun, index: ImageIndex) {
    this.#run = run;
    this.#index = index;
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
