// Texts against an index, in this process: one pass over all vectors for all texts, then the best few images of each text
// are read again and matched.

import { readFile } from "node:fs/promises";
import { ImageError } from "../image/image-error.ts";
import { sha256 } from "../jobs/store.ts";
import { type Candidate, featuresOf, rerank } from "../matching.ts";
import { purposesOf } from "../models/model-card.ts";
import { Largest } from "../search/largest.ts";
import { cosines, vectorValues } from "../search/similarity.ts";
import { expectModel, type ImageIndex, type IndexedImage, openImageIndex } from "../search/vector-file.ts";
import type { Activation, ContrastStages } from "../stages.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import { describeError, UsageError } from "./errors.ts";
import { indexModel } from "./local-indexing.ts";
import { chooseLocalModel, type LocalModel, type ModelRun, withModel } from "./local-model.ts";
import type { ModelFlags } from "./model-options.ts";
import { Progress } from "./progress.ts";

/** One line of output. */
export interface SearchResult {
  readonly text: string;
  /** From 1. */
  readonly rank: number;
  /** Absolute path. */
  readonly image: string;
  readonly itc: number;
  /** null where the image was not matched with the text. */
  readonly itm: number | null;
  /** Why it was not, though it should have been. */
  readonly error?: { readonly type: string; readonly message: string };
}

export interface LocalSearch {
  readonly texts: readonly string[];
  readonly file: string;
  readonly top: number;
  /** Images matched for each text, if the caller says so; else `defaultRerank`, or none with a model that cannot match. */
  readonly rerank?: number;
  readonly defaultRerank: number;
  readonly model: ModelFlags;
}

/** Images whose features are kept from text to text: some hundred MB of the largest models. */
const keptFeatures = 128;

/**
 * Run, handing all results of each text to `emit`, in the order of the texts.
 * @returns how many results have an error
 * @throws UsageError, ImageIndexError, TextError, what keeps a model from being loaded; InterruptedError after Ctrl-C
 */
export async function searchLocally(
  search: LocalSearch,
  emit: (results: readonly SearchResult[]) => void,
): Promise<number> {
  const index = await openImageIndex(search.file);
  if (index === null) {
    throw new UsageError(`--index: expected a file made by \`blipfleet index\`, got no such file ${search.file}`);
  }
  const model = await modelFor(search.model, index);
  const most = await rerankedImages(search, model.ref);
  const interrupted = "stopped before all texts were done";
  const found = Math.max(search.top, most);
  if (most === 0) {
    const request = { ...model, purpose: "vectors", stages: ["query"] } as const;
    return withModel(request, interrupted, (run) => searchWith(run, index, search, { found, order: asFound, emit }));
  }
  const request = { ...model, purpose: "matches", stages: ["encode", "query"] } as const;
  return withModel(request, interrupted, (run) =>
    searchWith(run, index, search, { found, order: matchedFirst(run, index, most), emit }),
  );
}

/** The model that made the index, or what --model and --dtype say it is. @throws UsageError */
async function modelFor(
  flags: ModelFlags,
  { file, model }: ImageIndex,
): Promise<Pick<LocalModel<"vectors">, "ref" | "dtype">> {
  if (flags.dtype !== "auto" && flags.dtype !== model.dtype) {
    throw new UsageError(`--dtype: expected ${model.dtype}, the type that ${file} was made with, got ${flags.dtype}`);
  }
  if (flags.model === undefined) return { ref: model.ref, dtype: model.dtype };
  return chooseLocalModel({ ...flags, dtype: model.dtype }, "vectors");
}

/** How many images are matched with each text. @throws UsageError when some should be and the model cannot */
async function rerankedImages({ rerank, defaultRerank }: LocalSearch, ref: string): Promise<number> {
  if (rerank === 0) return 0;
  if ((await purposesOf(await openCheckpoint(ref))).includes("matches")) return rerank ?? defaultRerank;
  if (rerank === undefined) return 0;
  throw new UsageError(`--rerank: expected 0 with ${ref}, which has no matching head, got ${rerank}`);
}

/** What is needed of a run to find images by their vectors. */
interface VectorRun {
  readonly stages: ContrastStages;
  readonly signal: AbortSignal;
}

interface Found {
  readonly place: number;
  readonly itc: number;
}

type Ranked = Found & Pick<SearchResult, "itm" | "error">;

/** What was found of a text, as it is to be shown. */
type Order = (found: readonly Found[], textIds: readonly number[]) => Promise<readonly Ranked[]>;

async function searchWith(
  run: VectorRun,
  index: ImageIndex,
  { texts, top }: LocalSearch,
  { found: most, order, emit }: { found: number; order: Order; emit: (results: readonly SearchResult[]) => void },
): Promise<number> {
  const { stages } = run;
  expectModel(index, indexModel(stages.card.ref, stages.card));
  const ids = await Promise.all(texts.map((text) => stages.tokenize(text)));
  const found = await nearest(run, index, ids, most);
  const progress = new Progress(texts.length, { noun: "texts" });
  let failures = 0;
  for (const [i, text] of texts.entries()) {
    const ranked = (await order(found[i] ?? [], ids[i] ?? [])).slice(0, top);
    const results = ranked.map(({ place, ...scores }, at) => {
      const image = index.images[place]?.images[0] ?? "";
      return { text, rank: at + 1, image, ...scores };
    });
    failures += results.filter(({ error }) => error !== undefined).length;
    emit(results);
    progress.add(false);
  }
  progress.finish();
  return failures;
}

/** The images with the largest cosines of each text, the largest first. */
async function nearest(
  { stages, signal }: VectorRun,
  index: ImageIndex,
  ids: readonly (readonly number[])[],
  most: number,
): Promise<Found[][]> {
  const vectors = await Promise.all(ids.map((textIds) => stages.queryText(textIds, { signal })));
  const texts = vectors.map(vectorValues);
  const best = texts.map(() => new Largest(most));
  const { queries, width } = index.model;
  for await (const { first, images, values } of index.blocks()) {
    signal.throwIfAborted();
    const scores = cosines(values, { images, queries, width }, texts);
    for (const [t, largest] of best.entries()) {
      for (let i = 0; i < images; i++) largest.add(scores[t * images + i] ?? Number.NaN, first + i);
    }
  }
  return best.map(({ inOrder }) => inOrder.map(({ score, place }) => ({ place, itc: score })));
}

/** By cosine alone. */
const asFound: Order = async (found) => found.map((each) => ({ ...each, itm: null }));

/** The first `most` are matched with the text, ordered anew, and come first. */
function matchedFirst(run: ModelRun<"matches">, index: ImageIndex, most: number): Order {
  const { stages, signal } = run;
  const images = new IndexedImages(run, index);
  return async (found, textIds) => {
    const candidates = found.slice(0, most).map((each): Found & Candidate => ({
      ...each,
      features: () => images.features(each.place),
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
  readonly #run: ModelRun<"matches">;
  readonly #index: ImageIndex;
  /** By place; least recently used first. */
  readonly #features = new Map<number, Promise<Activation>>();

  constructor(run: ModelRun<"matches">, index: ImageIndex) {
    this.#run = run;
    this.#index = index;
  }

  /** @throws ImageError when no file has these bytes any more */
  features(place: number): Promise<Activation> {
    const known = this.#features.get(place);
    const made = known ?? this.#encode(this.#index.images[place] as IndexedImage);
    this.#features.delete(place);
    this.#features.set(place, made);
    for (const oldest of this.#features.keys()) {
      if (this.#features.size <= keptFeatures) break;
      this.#features.delete(oldest);
    }
    return made;
  }

  async #encode(image: IndexedImage): Promise<Activation> {
    const { stages, signal } = this.#run;
    return featuresOf(stages, await bytesOf(image), { signal });
  }
}

/** The bytes of an image, from the first of its paths that still has them. @throws ImageError */
async function bytesOf({ digest, images }: IndexedImage): Promise<Uint8Array> {
  const problems: string[] = [];
  for (const image of images) {
    try {
      const bytes = await readFile(image);
      if (sha256(bytes) === digest) return bytes;
      problems.push(`${image} has other bytes`);
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      problems.push(`${image}: ${code === "ENOENT" ? "no such file" : code}`);
    }
  }
  throw new ImageError(
    `expected the image as it was indexed, got ${problems.join("; ")}; index it again, or use --rerank 0`,
  );
}
