// The first step of search, over a generated index as large as one wants: time of a query, how much of what the exact
// comparison finds it finds, sizes of files.
//
// Which images look alike to a model cannot be invented. So an index is made from the vectors that the demo model gives to
// pictures, each many times over with noise, and searched for their captions. Beside it two that no model gives: all vectors
// of random directions, which is hard for codes, and all around one. Each image has 32 vectors of 256, as the published
// BLIP-2 gives; the demo model's fewer and shorter ones are repeated and turned into more dimensions, which changes no cosine.

import { existsSync } from "node:fs";
import { readFile, rm, stat, statfs } from "node:fs/promises";
import { join, relative } from "node:path";
import { readSceneSet, retrievalSet } from "../evaluation/scene-sets.ts";
import type { BenchOptions, BenchRow } from "../src/cli/bench.ts";
import { UsageError } from "../src/cli/errors.ts";
import { inOrder } from "../src/cli/in-order.ts";
import { imagesInFlight } from "../src/cli/local-run.ts";
import { chooseModel } from "../src/cli/model-options.ts";
import { tell } from "../src/cli/output.ts";
import { median } from "../src/gpu/median.ts";
import { packageRoot } from "../src/gpu/package-root.ts";
import { cacheFolder } from "../src/jobs/roots.ts";
import { encodeImage } from "../src/matching.ts";
import { codeSizes } from "../src/search/codes.ts";
import { ImageSearch, type SearchAnswer } from "../src/search/image-search.ts";
import { quantizeVectors } from "../src/search/int8-vectors.ts";
import { type SearchQuery, vectorRows } from "../src/search/similarity.ts";
import { randomRotation } from "../src/search/spectrum.ts";
import { StoredVectors } from "../src/search/stored-vectors.ts";
import { type ImageIndex, openImageIndex } from "../src/search/vector-file.ts";
import type { IndexModel } from "../src/search/vector-file-format.ts";
import { ImageIndexWriter } from "../src/search/vector-file-writer.ts";
import { openStages } from "../src/workers/stages.ts";
import { inTemporaryFolder } from "./temporary-folder.ts";

const defaultImages = 1_000_000;
/** Of each image. */
const slots = 32;
const width = 256;
const size = slots * width;
const queriesOfSet = 100;
/** Queries by images take 32 times as long. */
const imageQueriesOfSet = 3;
const most = 10;
/** Length of the noise that is added to a unit vector. */
const noise = 0.25;
/** How far from the one direction the vectors of the cluster lie. */
const clusterRadius = 0.1;
/** Images that are written at a time. */
const block = 256;

interface VectorSet {
  readonly name: "model" | "random" | "one-cluster";
  /** (originals, slots, width); the images of the index are these in turn, with noise of this length. */
  readonly originals: Float32Array;
  readonly noise: number;
  readonly texts: readonly Float32Array[];
}

export async function rows({ images = defaultImages }: BenchOptions): Promise<readonly BenchRow[]> {
  return inTemporaryFolder("blipfleet-bench-", async (folder) => {
    await expectRoom(folder, images);
    const all: BenchRow[] = [];
    for (const set of [await modelVectors(), randomVectors(), oneCluster()]) {
      if (set === null) continue;
      all.push(...(await measure(join(folder, "photos.index"), images, set)));
      await rm(join(folder, "photos.index"));
    }
    return all;
  });
}

/** @throws UsageError when the disk of the temporary folder is too small for an index */
async function expectRoom(folder: string, images: number): Promise<void> {
  const { imageCodes, imageFactors } = codeSizes({ bits: 2, queries: slots, codeWidth: width });
  // What the list of images and the checks take is about 150 bytes an image.
  const needed = images * (size + imageCodes + imageFactors + 150);
  const { bavail, bsize } = await statfs(folder);
  const [wanted, free] = [needed, bavail * bsize].map((bytes) => `${(bytes / 1e9).toFixed(1)} GB`);
  tell(`bench: search: ${images} images need ${wanted} of disk for a while; ${folder} has ${free}`);
  if (needed <= bavail * bsize) return;
  throw new UsageError(
    `bench: expected ${wanted} of disk in ${folder}, got ${free}; set TMPDIR to another folder, or give fewer --images`,
  );
}

/** What the demo model makes of pictures and of their captions, or null where there is no such model. */
async function modelVectors(): Promise<VectorSet | null> {
  const ref = demoModel();
  if (ref === null) {
    tell("bench: search: no demo model that compares images with texts is in models/: only invented vectors");
    return null;
  }
  const scenes = await captionedPictures();
  const stages = await openStages({ ref, dtype: "f32", purpose: "vectors", cacheFolder: cacheFolder() });
  try {
    const [rows, columns] = stages.card.vectors;
    tell(`bench: search: ${rows} vectors of ${columns} of each of ${scenes.length} pictures, by ${relative("", ref)}`);
    const lift = randomRotation(width, columns);
    const originals = new Float32Array(scenes.length * size);
    let place = 0;
    const work = async ({ image }: CaptionedPicture) => (await encodeImage(stages, await readFile(image))).vectors;
    await inOrder(scenes, imagesInFlight, work, (vectors) => {
      const own = vectorRows(vectors).map((vector) => lifted(lift, vector));
      for (let slot = 0; slot < slots; slot++) originals.set(own[slot % rows] ?? [], place * size + slot * width);
      place += 1;
    });
    const step = Math.max(1, Math.floor(scenes.length / queriesOfSet));
    const asked = scenes.filter((_, i) => i % step === 0).slice(0, queriesOfSet);
    const texts = await Promise.all(
      asked.map(async ({ caption }) => {
        const [vector] = vectorRows(await stages.queryText(await stages.tokenize(caption)));
        return lifted(lift, vector ?? new Float32Array(columns));
      }),
    );
    return { name: "model", originals, noise, texts };
  } finally {
    await stages.close();
  }
}

function demoModel(): string | null {
  try {
    return chooseModel(undefined, "vectors").ref;
  } catch (error) {
    if (error instanceof UsageError) return null;
    throw error;
  }
}

interface CaptionedPicture {
  /** Path. */
  readonly image: string;
  readonly caption: string;
}

/** The retrieval set of `npm run eval:demo`, where that has drawn it; else the examples. */
async function captionedPictures(): Promise<readonly CaptionedPicture[]> {
  const sets = join(cacheFolder(), "evaluation", "sets");
  if (existsSync(join(sets, retrievalSet, "items.jsonl"))) return (await readSceneSet(sets, retrievalSet)).items;
  tell(
    "bench: search: the retrieval set has not been drawn (npm run eval:demo -- --set retrieval): taking the examples",
  );
  const lines = await readFile(join(packageRoot, "examples", "captions.jsonl"), "utf8");
  return lines
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
    .map(({ image, text }) => ({ image: join(packageRoot, "examples", image), caption: text }));
}

/** A vector in the space that the columns of a rotation span: (columns,) -> (width,). */
function lifted(rotation: Float64Array, vector: Float32Array): Float32Array {
  const columns = vector.length;
  return Float32Array.from({ length: width }, (_, row) =>
    vector.reduce((sum, value, i) => sum + (rotation[row * columns + i] as number) * value, 0),
  );
}

/** Every vector of a direction of its own. */
function randomVectors(): VectorSet {
  return { name: "random", originals: new Float32Array(size), noise: 1, texts: randomTexts(queriesOfSet, 1) };
}

/** All vectors around one direction. */
function oneCluster(): VectorSet {
  const [center = new Float32Array(width)] = randomTexts(1, 2);
  const originals = new Float32Array(size);
  for (let slot = 0; slot < slots; slot++) originals.set(center, slot * width);
  return { name: "one-cluster", originals, noise: clusterRadius, texts: randomTexts(queriesOfSet, 3) };
}

function randomTexts(count: number, seed: number): Float32Array[] {
  const random = randomNumbers(seed);
  return Array.from({ length: count }, () => {
    const vector = new Float32Array(width);
    addNoise(vector, 0, 1, random);
    return vector;
  });
}

async function measure(file: string, images: number, set: VectorSet): Promise<BenchRow[]> {
  const generated = await timed(() => generate(file, images, set));
  const index = generated.result;
  const { size: fileBytes } = await stat(file);
  const { imageCodes, imageFactors } = codeSizes({ bits: 2, queries: slots, codeWidth: width });
  const search = new ImageSearch(index);
  try {
    const texts: SearchQuery[] = set.texts.map((text) => [text]);
    tell(`bench: search: ${set.name}: ${texts.length} texts by codes`);
    // Reads all codes, and compares their checks: what the first query of a process waits for.
    const first = await timed(() => search.search(texts.slice(0, 1), { most }));
    const byCodes = await eachTimed(texts, (query) => search.search([query], { most }));
    const examples = exampleQueries(index, Math.min(imageQueriesOfSet, images));
    const byImage = await eachTimed(examples, (query) => search.search([query], { most }));
    tell(`bench: search: ${set.name}: all images compared, for one text, all texts, ${examples.length} images`);
    const exactOne = await timed(() => search.search(texts.slice(0, 1), { most, exact: true }));
    const exact = await search.search(texts, { most, exact: true });
    const exactByImage = await search.search(examples, { most, exact: true });
    const row = (name: string, unit: string, ours: number, peer: number | null = null): BenchRow => {
      return { name: `search-${set.name}-${name}`, ours, peer, unit, ratio: peer === null ? null : ours / peer };
    };
    const recall = recallOf(byCodes.found, exact.found);
    tell(`bench: search: ${set.name}: recall@10 ${recall.toFixed(4)}, ${median(byCodes.times).toFixed(0)} ms a query`);
    return [
      row("query-median", "ms", median(byCodes.times), exactOne.seconds * 1000),
      row("query-slowest", "ms", Math.max(...byCodes.times)),
      row("query-processor-time-median", "ms", median(byCodes.processor), exactOne.processor * 1000),
      row("first-query", "ms", first.seconds * 1000),
      row("recall-at-10", "", recall),
      row("compared-median", "images", median(byCodes.compared), images),
      row("by-image-query-median", "ms", median(byImage.times)),
      row("by-image-recall-at-10", "", recallOf(byImage.found, exactByImage.found)),
      row("by-image-compared-median", "images", median(byImage.compared), images),
      row("file", "GB", fileBytes / 1e9),
      row("codes-and-vectors", "GB", (images * (imageCodes + imageFactors)) / 1e9, (images * size) / 1e9),
      row("generate", "s", generated.seconds),
    ];
  } finally {
    await search.close();
  }
}

/** Write an index of int8 vectors, with codes. */
async function generate(file: string, images: number, set: VectorSet): Promise<ImageIndex> {
  tell(`bench: search: ${set.name}: making ${images} images`);
  const model: IndexModel = { ref: "bench", digest: "00".repeat(32), dtype: "f32", queries: slots, width };
  const random = randomNumbers(4);
  const count = set.originals.length / size;
  const writer = await ImageIndexWriter.create(file, model, "int8");
  for (let first = 0; first < images; first += block) {
    const values = new Float32Array(Math.min(block, images - first) * size);
    for (let from = 0; from < values.length; from += size) {
      const original = ((first + from / size) % count) * size;
      values.set(set.originals.subarray(original, original + size), from);
      for (let slot = 0; slot < slots; slot++) addNoise(values, from + slot * width, set.noise, random);
    }
    await writer.add(new Uint8Array(quantizeVectors(values, width).buffer));
  }
  const list = Array.from({ length: images }, (_, i) => ({
    digest: i.toString(16).padStart(64, "0"),
    images: [`/photos/${i}.jpg`],
  }));
  await writer.commit(list, null, "always");
  const index = await openImageIndex(file);
  if (index === null) throw new Error(`bench: expected ${file} to be written, got none`);
  return index;
}

/** Add a random vector of about this length to one of `width` values, then make the sum a unit vector. */
function addNoise(values: Float32Array, from: number, length: number, random: () => number): void {
  // Uniform from -1 to 1: of variance 1/3.
  const scale = length * Math.sqrt(3 / width);
  let squares = 0;
  for (let i = from; i < from + width; i++) {
    const value = (values[i] as number) + scale * random();
    values[i] = value;
    squares += value * value;
  }
  const unit = 1 / Math.sqrt(squares);
  for (let i = from; i < from + width; i++) values[i] = (values[i] as number) * unit;
}

/** From -1 to 1, the same for the same seed: xorshift32. */
function randomNumbers(seed: number): () => number {
  let state = Math.imul(seed, 0x9e3779b1) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  };
}

/** Images of the index itself, evenly spread. */
function exampleQueries({ stored }: ImageIndex, count: number): SearchQuery[] {
  const vectors = new StoredVectors(stored);
  try {
    return Array.from({ length: count }, (_, i) => {
      const values = new Float32Array(size);
      vectors.read(Math.floor((i * stored.images) / count), 1, values);
      return Array.from({ length: slots }, (_, slot) => values.subarray(slot * width, (slot + 1) * width));
    });
  } finally {
    vectors.close();
  }
}

type Places = readonly (readonly { readonly place: number }[])[];

/** Of what is to be found, the part that was. */
function recallOf(found: Places, wanted: Places): number {
  let [hits, all] = [0, 0];
  for (const [q, each] of wanted.entries()) {
    const places = new Set(found[q]?.map(({ place }) => place));
    hits += each.filter(({ place }) => places.has(place)).length;
    all += each.length;
  }
  return hits / all;
}

/** One query after the other. */
async function eachTimed(
  queries: readonly SearchQuery[],
  work: (query: SearchQuery) => Promise<SearchAnswer>,
): Promise<{
  readonly times: number[];
  readonly processor: number[];
  readonly found: Places;
  readonly compared: number[];
}> {
  const [times, processor, compared]: [number[], number[], number[]] = [[], [], []];
  const found: Places[number][] = [];
  for (const query of queries) {
    const { result, seconds, processor: used } = await timed(() => work(query));
    times.push(seconds * 1000);
    processor.push(used * 1000);
    found.push(...result.found);
    compared.push(...result.compared);
  }
  return { times, processor, found, compared };
}

interface Timed<T> {
  readonly result: T;
  readonly seconds: number;
  /** Seconds of all threads together: hardly longer where other work is on the machine. */
  readonly processor: number;
}

async function timed<T>(work: () => Promise<T>): Promise<Timed<T>> {
  const started = performance.now();
  const before = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(before);
  return { result, seconds: (performance.now() - started) / 1000, processor: (user + system) / 1e6 };
}
