// Texts against an index, in this process: one pass over all vectors for all texts, then the best few images of each text
// are read again and matched.

import { readFile } from "node:fs/promises";
import { ImageError } from "../image/image-error.ts";
import { sha256 } from "../jobs/store.ts";
import { type Candidate, featuresOf, rerank } from "../matching.ts";
import { Largest } from "../search/largest.ts";
import { cosines, vectorValues } from "../search/similarity.ts";
import { expectModel, type ImageIndex, type IndexedImage, openImageIndex } from "../search/vector-file.ts";
import type { Activation } from "../stages.ts";
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
  readonly rerank: number;
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
  const stages = search.rerank === 0 ? (["query"] as const) : (["encode", "query"] as const);
  return withModel({ ...model, stages }, "stopped before all texts were done", async (run) => {
    expectModel(index, indexModel(model.ref, run.stages.card));
    const ids = await Promise.all(search.texts.map((text) => run.stages.tokenize(text)));
    const found = await nearest(run, index, ids, Math.max(search.top, search.rerank));
    const images = new IndexedImages(run, index);
    const progress = new Progress(search.texts.length, { noun: "texts" });
    let failures = 0;
    for (const [i, text] of search.texts.entries()) {
      const results = await ordered(run, images, search, { text, ids: ids[i] ?? [], found: found[i] ?? [] });
      failures += results.filter(({ error }) => error !== undefined).length;
      emit(results);
      progress.add(false);
    }
    progress.finish();
    return failures;
  });
}

/** The model that made the index, or what --model and --dtype say it is. @throws UsageError */
async function modelFor(flags: ModelFlags, { file, model }: ImageIndex): Promise<LocalModel<"matches">> {
  if (flags.dtype !== "auto" && flags.dtype !== model.dtype) {
    throw new UsageError(`--dtype: expected ${model.dtype}, the type that ${file} was made with, got ${flags.dtype}`);
  }
  if (flags.model === undefined) return { ref: model.ref, dtype: model.dtype, purpose: "matches" };
  return chooseLocalModel({ ...flags, dtype: model.dtype }, "matches");
}

interface Found {
  readonly place: number;
  readonly itc: number;
}

/** The images with the largest cosines of each text, the largest first. */
async function nearest(
  { stages, signal }: ModelRun<"matches">,
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

/** The results of one text: those that were matched first. */
async function ordered(
  { stages, signal }: ModelRun<"matches">,
  images: IndexedImages,
  search: LocalSearch,
  { text, ids, found }: { readonly text: string; readonly ids: readonly number[]; readonly found: readonly Found[] },
): Promise<SearchResult[]> {
  const candidates = found.slice(0, search.rerank).map((each): Found & Candidate => ({
    ...each,
    features: () => images.features(each.place),
  }));
  const matched = (await rerank(stages, candidates, ids, { signal })).map((each) => {
    const { place, itc } = each.candidate;
    const outcome = "error" in each ? { itm: null, error: describeError(each.error) } : { itm: each.itm };
    return { place, itc, ...outcome };
  });
  const rest = found.slice(search.rerank).map((each) => ({ ...each, itm: null }));
  return [...matched, ...rest]
    .slice(0, search.top)
    .map(({ place, ...scores }, i) => ({ text, rank: i + 1, image: images.pathOf(place), ...scores }));
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

  pathOf(place: number): string {
    return this.#index.images[place]?.images[0] ?? "";
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
