// The activities encode and compare of a chunk of match, classify, index or capfilt: what a model that compares makes of images and
// texts. Split: encode leaves features in the prompt store, and compare takes them from there. Fused: compare does both.

import { Context } from "@temporalio/activity";
import { scoresOfRead } from "../../classifying.ts";
import { judgeTexts } from "../../filtering.ts";
import { type ResultLine, readResults } from "../../jobs/results.ts";
import { openStore, sha256 } from "../../jobs/store.ts";
import { type EncodedImage, encodedFrom, featuresOf, matchWith, score } from "../../matching.ts";
import type { ItemResult, LabelLine, MatchLine } from "../../messages/item-result.ts";
import type {
  Asked,
  CompareInput,
  EncodeInput,
  EncodeOutcome,
  GenerateOutcome,
  ItemError,
  PromptLine,
  Task,
} from "../../messages/job.ts";
import { expectServes, type Purpose } from "../../models/families.ts";
import { vectorValues } from "../../search/similarity.ts";
import {
  type Activation,
  featuresForm,
  type LabelStages,
  type RetrievalStages,
  type RowOptions,
  type Vectors,
} from "../../stages.ts";
import { StageRun } from "./encode.ts";
import { type Found, finishChunk } from "./finish-chunk.ts";
import { knownImages } from "./known-images.ts";
import { LabelReader } from "./label-reader.ts";
import { keyOf } from "./make-prompts.ts";
import { itemError } from "./mistakes.ts";
import { commitPromptLines, itemsOfRound, type Placed, readPromptLines } from "./prompt-lines.ts";
import { featuresName } from "./prompt-names.ts";
import { readImage } from "./read-image.ts";
import type { ComparingServing } from "./serving.ts";

/** ViT: the features of every image into the prompt store, and a line about each. What the store has is left as it is. */
export async function encodeForComparing(serving: ComparingServing, input: EncodeInput): Promise<EncodeOutcome> {
  const items = await itemsOfRound(input, input.missing);
  const run = new StageRun(serving, "encode", items.length);
  if (input.missing !== null) serving.metrics.reencode(items.length);
  const known = await knownImages(input.asked, serving.roots);
  const lines: PromptLine[] = [];
  await run.each(items, async ({ position, item, overwrite }, signal) => {
    try {
      const bytes = await readImage(item.uri, serving.roots);
      const image = sha256(bytes);
      const { key, made } = known.has(image)
        ? { key: featuresName(image, serving.stages.card).key, made: false }
        : await publishFeatures(serving, bytes, image, overwrite, { signal });
      lines.push({ position, prompt: key, image });
      run.count(made ? "made" : "reused");
    } catch (error) {
      lines.push({ position, error: run.itemFailed(error, signal) });
    }
  });
  return { ...run.work(), committed: await commitPromptLines(input, "features", input.round, lines) };
}

async function publishFeatures(
  serving: ComparingServing,
  bytes: Uint8Array,
  image: string,
  overwrite: boolean,
  row: RowOptions,
): Promise<{ readonly key: string; readonly made: boolean }> {
  const { stages, prompts, publishing } = serving;
  const name = featuresName(image, stages.card);
  let made = false;
  await publishing.once(`${name.key} ${overwrite}`, async () => {
    if (!overwrite && (await prompts.has(name))) return;
    await prompts.put(name, await featuresOf(stages, bytes, row), { overwrite });
    made = true;
  });
  return { key: name.key, made };
}

/** Results for all items whose features can be had; the chunk's result when none is missing, or in the last round. */
export async function compare(serving: ComparingServing, input: CompareInput): Promise<GenerateOutcome> {
  const { asked } = input;
  expectServes(serving.stages.card, purposeOf(asked.task));
  const store = openStore(input.folder);
  const encoded = input.encoded === null ? null : await readPromptLines(store, input.encoded);
  const captions = input.captions === null ? [] : await readResults(store, input.captions);
  const comparing: Comparing = {
    ...{ serving, input, encoded },
    captions: new Map(captions.map(({ index, result }) => [index, result])),
    known: await knownImages(asked, serving.roots),
    vectors: new Map(),
    labels: new LabelReader(serving.stages as LabelStages, asked.templates ?? []),
  };
  const stage = encoded === null ? "encode" : "query";
  return finishChunk(serving, input, { stage, object: "compare" }, (placed, run, signal) =>
    resultOf(comparing, placed, run, signal),
  );
}

/** What the model that compares is wanted for. */
function purposeOf(task: Task): Purpose {
  return task === "index" ? "vectors" : task === "classify" ? "labels" : "matches";
}

interface Comparing {
  readonly serving: ComparingServing;
  readonly input: CompareInput;
  /** By position; null: images are encoded here. */
  readonly encoded: ReadonlyMap<number, PromptLine> | null;
  /** What the captioner said, by the item's index. */
  readonly captions: ReadonlyMap<number, ResultLine["result"]>;
  /** Images of the index that need no vectors. */
  readonly known: ReadonlySet<string>;
  /** By image: copies in one chunk are encoded once. */
  readonly vectors: Map<string, Promise<Made>>;
  /** classify: of the job's templates. */
  readonly labels: LabelReader;
}

type Made = Vectors | { readonly missing: "absent" | "damaged" };

async function resultOf(comparing: Comparing, placed: Placed, run: StageRun, signal: AbortSignal): Promise<Found> {
  const { position, item } = placed;
  const named = { id: item.id, image: item.image };
  const failed = (error: ItemError): Found => ({ result: { ...named, status: "failed", error } });
  const caption = comparing.captions.get(item.index);
  if (caption?.status === "failed") return failed(caption.error);
  const line = comparing.encoded?.get(position);
  if (comparing.encoded !== null && line === undefined) return { missing: "absent" };
  if (line !== undefined && "error" in line) return failed(line.error);
  try {
    const source = line === undefined ? await imageSource(comparing, item.uri) : storeSource(comparing, line);
    const found =
      comparing.input.asked.task === "index"
        ? await vectorsOf(comparing, named, source, signal)
        : await scoresOf(comparing, named, placed, caption, source, signal);
    if (!("missing" in found)) {
      run.count("result" in found && "vectors" in found.result && found.vectors === undefined ? "reused" : "made");
      return found;
    }
    if (!comparing.input.last) return found;
    return failed({
      type: "PromptStoreError",
      message:
        `prompt store: expected the features of ${item.id}, got none (${found.missing}) after ${comparing.input.round} ` +
        "further encodes; raise the stream's max_bytes or max_age, or use a smaller window",
    });
  } catch (error) {
    return failed(run.itemFailed(error, signal));
  }
}

/** An image, and how its features are had. */
interface Source {
  /** Hex SHA-256 of the image file's bytes. */
  readonly digest: string;
  features(row: RowOptions): Promise<Activation | { readonly missing: "absent" | "damaged" }>;
}

async function imageSource({ serving }: Comparing, uri: string): Promise<Source> {
  const bytes = await readImage(uri, serving.roots);
  return { digest: sha256(bytes), features: (row) => featuresOf(serving.stages, bytes, row) };
}

function storeSource({ serving }: Comparing, line: Exclude<PromptLine, { error: ItemError }>): Source {
  if (line.image === undefined) throw new Error(`encode: expected the digest of the image of ${line.prompt}, got none`);
  return {
    digest: line.image,
    async features() {
      const found = await serving.prompts.get(keyOf(serving, line.prompt), featuresForm(serving.stages.card));
      if (!("miss" in found)) return found;
      serving.metrics.miss("query", found.miss);
      return { missing: found.miss === "absent" ? "absent" : "damaged" };
    },
  };
}

type Named = Pick<ItemResult, "id" | "image">;

async function vectorsOf(
  { serving, known, vectors }: Comparing,
  named: Named,
  { digest, features }: Source,
  signal: AbortSignal,
): Promise<Found> {
  const result = { ...named, status: "done" as const, vectors: { digest, at: null } };
  if (known.has(digest)) return { result };
  const make = async (): Promise<Made> => {
    const found = await features({ signal });
    return "missing" in found ? found : serving.stages.queryImage(found, { signal });
  };
  const making = vectors.get(digest) ?? make();
  vectors.set(digest, making);
  const made = await making;
  return "missing" in made ? made : { result, vectors: made };
}

/** Of match, classify and capfilt. */
async function scoresOf(
  { serving, input, labels }: Comparing,
  named: Named,
  { item }: Placed,
  caption: ItemResult | undefined,
  source: Source,
  signal: AbortSignal,
): Promise<Found> {
  const stages = serving.stages as RetrievalStages; // expectServes has asked
  const features = await source.features({ signal });
  if ("missing" in features) return features;
  const image = await encodedFrom(stages, features, { signal });
  const texts = item.texts ?? [];
  if (input.asked.task === "classify") {
    const asked = textsOf(input.asked, texts);
    const read = await labels.read(asked, signal);
    const seen = vectorValues(image.vectors);
    return { result: classified(named, seen, asked, read, serving.stages as LabelStages) };
  }
  if (input.asked.task !== "capfilt") {
    return { result: await matched(stages, image, named, textsOf(input.asked, texts), signal) };
  }
  if (caption === undefined || !("text" in caption))
    throw new Error(`generate: expected a caption of ${named.id}, got none`);
  const judged = { web: texts, synthetic: caption.text };
  const decisions = await judgeTexts(stages, image, judged, thresholdOf(input.asked), { signal });
  return { result: { ...named, status: "done", decisions } };
}

/** A label that could not be read fails the item, and leaves the others their shares. */
function classified(
  named: Named,
  image: Float32Array,
  labels: readonly string[],
  read: readonly (Float32Array | ItemError)[],
  { card }: LabelStages,
): ItemResult {
  const lines = scoresOfRead(image, read, card.logitScale).map((found, i): LabelLine => {
    const label = labels[i] ?? "";
    if ("message" in found) return { label, error: found };
    return { label, logit: score(found.logit), probability: score(found.probability) };
  });
  const [error] = lines.flatMap((line) => ("error" in line ? [line.error] : []));
  if (error !== undefined) return { ...named, status: "failed", error, labels: lines };
  return { ...named, status: "done", labels: lines };
}

function textsOf({ texts = [] }: Asked, own: readonly string[]): readonly string[] {
  return own.length > 0 ? own : texts;
}

function thresholdOf({ filter }: Asked): number {
  if (filter === undefined) throw new Error("capfilt: expected a filter in the job, got none");
  return filter.threshold;
}

/** All texts of an item at once. One that cannot be read fails the item, and leaves the others their scores. */
async function matched(
  stages: RetrievalStages,
  image: EncodedImage,
  named: Named,
  texts: readonly string[],
  signal: AbortSignal,
): Promise<ItemResult> {
  const matches = await Promise.all(
    texts.map(async (text): Promise<MatchLine> => {
      try {
        const { itm, itc } = await matchWith(stages, image, text, { signal });
        return { text, itm: score(itm), itc: score(itc) };
      } catch (error) {
        signal.throwIfAborted();
        return { text, error: itemError(error, Context.current().info.attempt) };
      }
    }),
  );
  const [error] = matches.flatMap((line) => ("error" in line ? [line.error] : []));
  return error === undefined ? { ...named, status: "done", matches } : { ...named, status: "failed", error, matches };
}
