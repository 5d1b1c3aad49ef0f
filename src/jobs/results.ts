// Results of a job: what the stages commit chunk by chunk, and how it becomes one file in the order of the manifest.
//
// Only objects whose digests are handed in (they come from the workflow) are read, so nothing that a late or confused
// worker leaves in the folder can reach an export.

import { z } from "zod";
import type { Decision, ItemResult, LabelLine, MatchLine } from "../messages/item-result.ts";
import type {
  Committed,
  FailedItem,
  IndexPage,
  JobRecord,
  ManifestItem,
  ManifestRef,
  ResultCount,
  Stage,
} from "../messages/job.ts";
import { IncompleteJobError, StoreError } from "./errors.ts";
import { commitJsonl, readJson, readJsonl } from "./jsonl.ts";
import { manifestItems } from "./manifest.ts";
import { type ObjectStore, openStore } from "./store.ts";

/** Who made an item's result. Kept beside the results, never in them: results are equal on every fleet. */
export interface Maker {
  /** The GPU, e.g. "llvmpipe (LLVM 19.1.7, 256 bits)". */
  readonly adapter: string;
  /** The worker process, e.g. "host-7 pid 1234". */
  readonly worker: string;
}

/** One line of a committed result object. `index` is the item's place in the manifest. */
export interface ResultLine {
  readonly index: number;
  readonly result: ItemResult;
  readonly maker: Maker;
}

/** The committed result objects of one chunk. Chunks are numbered in manifest order. */
export interface ChunkResults {
  readonly chunk: number;
  readonly objects: readonly Committed[];
}

/** One attempt of a job as the export sees it. */
export interface AttemptResults {
  readonly store: ObjectStore;
  readonly manifest: ManifestRef;
  readonly chunks: readonly ChunkResults[];
}

const committed = z.object({ name: z.string(), sha256: z.string() });

const named = z.object({ id: z.string(), image: z.string(), question: z.string().exactOptional() });
const done = named.extend({ status: z.literal("done") });
const itemError = z.object({ type: z.string(), message: z.string() });

const matchSchema: z.ZodType<MatchLine> = z.union([
  z.object({ text: z.string(), itm: z.number(), itc: z.number() }),
  z.object({ text: z.string(), error: itemError }),
]);

const labelSchema: z.ZodType<LabelLine> = z.union([
  z.object({ label: z.string(), logit: z.number(), probability: z.number() }),
  z.object({ label: z.string(), error: itemError }),
]);

const decisionSchema: z.ZodType<Decision> = z.object({
  text: z.string(),
  source: z.enum(["web", "synthetic"]),
  itm: z.number().nullable(),
  itc: z.number().nullable(),
  kept: z.boolean(),
  reason: z.string(),
});

const resultSchema: z.ZodType<ItemResult> = z.union([
  done.extend({ text: z.string(), token_ids: z.array(z.number().int()), score: z.number().exactOptional() }),
  done.extend({ matches: z.array(matchSchema) }),
  done.extend({ labels: z.array(labelSchema) }),
  done.extend({ decisions: z.array(decisionSchema) }),
  done.extend({
    vectors: z.object({
      digest: z.string(),
      at: z
        .object({
          object: committed,
          row: z.number().int().nonnegative(),
          shape: z.tuple([z.number().int().positive(), z.number().int().positive()]),
        })
        .nullable(),
    }),
  }),
  named.extend({
    status: z.literal("failed"),
    error: itemError,
    matches: z.array(matchSchema).exactOptional(),
    labels: z.array(labelSchema).exactOptional(),
  }),
]);

const lineSchema = z.object({
  index: z.number().int().nonnegative(),
  result: resultSchema,
  maker: z.object({ adapter: z.string(), worker: z.string() }),
});

/**
 * Name of the object that one stage commits for a chunk; with `part` for one of its sub-results.
 * e.g. chunks/000012/generate.jsonl, chunks/000012/generate.00003.jsonl
 */
export function stageObjectName(chunk: number, stage: Stage | "features" | "compare", part?: number): string {
  const suffix = part === undefined ? "" : `.${String(part).padStart(5, "0")}`;
  return `chunks/${String(chunk).padStart(6, "0")}/${stage}${suffix}.jsonl`;
}

/** Commit result lines under a name of stageObjectName(), first writer wins. */
export async function commitResults(
  store: ObjectStore,
  name: string,
  lines: readonly ResultLine[],
): Promise<Committed> {
  return commitJsonl(
    store,
    name,
    lines.map(({ index, result, maker }) => ({ index, result: ordered(result), maker })),
  );
}

/** The lines of a committed result object. @throws StoreError */
export async function readResults(store: ObjectStore, object: Committed): Promise<ResultLine[]> {
  return readJsonl(store, object, lineSchema);
}

/** What is in a chunk's result. */
export function countsOf(lines: readonly ResultLine[]): ResultCount {
  const failures = lines.flatMap(({ result }) => (result.status === "failed" ? [result] : []));
  const [first] = failures;
  const counts = { done: lines.length - failures.length, failed: failures.length };
  return first === undefined ? counts : { ...counts, firstFailure: shortened(first) };
}

/** So short that many of them are nothing to a workflow's history. */
function shortened({ id, error }: FailedItem): FailedItem {
  return { id: id.slice(0, 200), error: { type: error.type, message: error.message.slice(0, 300) } };
}

/** Fields in one order, so that equal results are equal bytes. */
function ordered(result: ItemResult): ItemResult {
  const { id, image } = result;
  const question = result.question === undefined ? {} : { question: result.question };
  if (result.status === "failed") {
    const { type, message } = result.error;
    const matches = result.matches === undefined ? {} : { matches: result.matches.map(orderedMatch) };
    const labels = result.labels === undefined ? {} : { labels: result.labels.map(orderedLabel) };
    return { id, image, status: "failed", ...question, error: { type, message }, ...matches, ...labels };
  }
  const start = { id, image, status: "done", ...question } as const;
  if ("matches" in result) return { ...start, matches: result.matches.map(orderedMatch) };
  if ("labels" in result) return { ...start, labels: result.labels.map(orderedLabel) };
  if ("decisions" in result) return { ...start, decisions: result.decisions.map(orderedDecision) };
  if ("vectors" in result) return { ...start, vectors: result.vectors };
  const { text, token_ids, score } = result;
  return { ...start, text, token_ids, ...(score !== undefined && { score }) };
}

function orderedMatch(line: MatchLine): MatchLine {
  const { text } = line;
  return "error" in line ? { text, error: line.error } : { text, itm: line.itm, itc: line.itc };
}

function orderedLabel(line: LabelLine): LabelLine {
  const { label } = line;
  return "error" in line ? { label, error: line.error } : { label, logit: line.logit, probability: line.probability };
}

function orderedDecision({ text, source, itm, itc, kept, reason }: Decision): Decision {
  return { text, source, itm, itc, kept, reason };
}

/** The lines that a result is in the job's output. */
function outputLines(result: ItemResult, { keptOnly = false }: ExportOptions): object[] {
  const { id, image, ...rest } = ordered(result);
  if ("matches" in rest && rest.matches !== undefined) return rest.matches.map((line) => comparedLine(result, line));
  if ("labels" in rest && rest.labels !== undefined) return rest.labels.map((line) => comparedLine(result, line));
  if ("decisions" in rest) {
    const wanted = rest.decisions.filter(({ kept }) => kept || !keptOnly);
    return wanted.map((decision) => ({ id, image, status: rest.status, ...decision }));
  }
  if (keptOnly) return [];
  if ("vectors" in rest) return [{ id, image, status: rest.status, digest: rest.vectors.digest }];
  return [{ id, image, ...rest }];
}

/** The line of one text or label of an item. */
function comparedLine({ id, image }: ItemResult, line: MatchLine | LabelLine): object {
  return { id, image, status: "error" in line ? "failed" : "done", ...line };
}

const pageSchema: z.ZodType<IndexPage> = z.object({
  page: z.number().int().nonnegative(),
  previous: committed.nullable(),
  chunks: z.array(
    z.object({
      chunk: z.number().int().nonnegative(),
      result: committed,
      done: z.number().int().nonnegative(),
      failed: z.number().int().nonnegative(),
    }),
  ),
});

/**
 * The attempts of a job, oldest first, from what its workflow says was committed. An attempt that was not planned yet
 * is left out.
 * @throws StoreError, PathError
 */
export async function attemptsOf(records: readonly JobRecord[]): Promise<AttemptResults[]> {
  const attempts: AttemptResults[] = [];
  for (const { folder, manifest, head } of records) {
    if (manifest === null) continue;
    const store = openStore(folder);
    const chunks: ChunkResults[] = [];
    for (let at = head; at !== null; ) {
      const page: IndexPage = await readJson(store, at, pageSchema);
      chunks.push(...page.chunks.map(({ chunk, result }) => ({ chunk, objects: [result] })));
      at = page.previous;
    }
    attempts.push({ store, manifest, chunks });
  }
  return attempts;
}

/** An item of the manifest with its result line; `line` is undefined while there is none. */
export interface ItemWithResult {
  readonly item: ManifestItem;
  readonly line: ResultLine | undefined;
}

/**
 * Every item of one attempt's manifest in order, exactly once, with its result. One shard and one chunk are in memory.
 * @throws StoreError when two committed lines claim one item or a line is not that item's.
 */
export async function* itemsWithResults(attempt: AttemptResults): AsyncGenerator<ItemWithResult> {
  const lines = resultLines(attempt);
  let next = await lines.next();
  for await (const item of manifestItems(attempt.store, attempt.manifest)) {
    const line = next.done !== true && next.value.index === item.index ? next.value : undefined;
    if (line !== undefined) {
      if (line.result.id !== item.id || line.result.image !== item.image) {
        throw new StoreError(
          `results: expected item ${item.index} to be ${JSON.stringify(item.id)}, got a result of ${JSON.stringify(line.result.id)}`,
        );
      }
      next = await lines.next();
    }
    yield { item, line };
  }
  if (next.done !== true) {
    throw new StoreError(
      `results: expected ${attempt.manifest.items} items, got a result for item ${next.value.index}`,
    );
  }
}

/** All committed lines in order of the items. */
async function* resultLines({ store, chunks }: AttemptResults): AsyncGenerator<ResultLine> {
  let last = -1;
  for (const { chunk, objects } of [...chunks].sort((a, b) => a.chunk - b.chunk)) {
    const lines = (await Promise.all(objects.map((object) => readResults(store, object)))).flat();
    for (const line of lines.sort((a, b) => a.index - b.index)) {
      if (line.index <= last) {
        throw new StoreError(`results: expected item ${line.index} once, got it again in chunk ${chunk}`);
      }
      last = line.index;
      yield line;
    }
  }
}

export interface ExportOptions {
  /** Leave items without a result out instead of refusing. Default false. */
  readonly partial?: boolean;
  /** Of capfilt: only texts that are kept. Default false. */
  readonly keptOnly?: boolean;
}

/** How a job stands. */
export interface ResultCounts {
  readonly items: number;
  readonly done: number;
  readonly failed: number;
  readonly missing: number;
}

/**
 * The job's results as JSON lines (each with its newline), one per item (of match and capfilt one per text, of classify one per label), in manifest
 * order: the same bytes whatever the topology, the workers and the order in which chunks finished.
 * @param attempts of attemptsOf(): the first names the items; later ones replace failures and fill gaps
 * @throws IncompleteJobError before the first line when items have no result and `partial` is not set
 * @throws StoreError
 */
export async function* exportLines(
  attempts: readonly AttemptResults[],
  options: ExportOptions = {},
): AsyncGenerator<string> {
  for await (const { result } of finalLines(attempts, options)) {
    for (const line of outputLines(result, options)) yield `${JSON.stringify(line)}\n`;
  }
}

/**
 * Beside the export: {"id", "status", "adapter", "worker"} of every item with a result, as JSON lines in the same order.
 * @throws as exportLines
 */
export async function* statsLines(
  attempts: readonly AttemptResults[],
  options: ExportOptions = {},
): AsyncGenerator<string> {
  for await (const { result, maker } of finalLines(attempts, options)) {
    const { adapter, worker } = maker;
    yield `${JSON.stringify({ id: result.id, status: result.status, adapter, worker })}\n`;
  }
}

/** Count a job's results as an export would find them. @throws StoreError */
export async function countResults(attempts: readonly AttemptResults[]): Promise<ResultCounts> {
  const counts = { items: 0, done: 0, failed: 0, missing: 0 };
  for await (const { line } of merged(attempts)) {
    counts.items += 1;
    counts[line?.result.status ?? "missing"] += 1;
  }
  return counts;
}

/**
 * The items that failed or have no result, indexed from 0: what the manifest of the next attempt holds (see
 * commitManifest). @throws StoreError
 */
export async function* unfinishedItems(attempts: readonly AttemptResults[]): AsyncGenerator<ManifestItem> {
  let index = 0;
  for await (const { item, line } of merged(attempts)) {
    if (line?.result.status === "done") continue;
    yield { ...item, index };
    index += 1;
  }
}

async function* finalLines(attempts: readonly AttemptResults[], options: ExportOptions): AsyncGenerator<ResultLine> {
  for await (const { line } of finishedItems(attempts, options)) yield line;
}

async function expectComplete(attempts: readonly AttemptResults[]): Promise<void> {
  const total = attempts[0]?.manifest.items ?? 0;
  let missing = 0;
  let firstMissing = "";
  for await (const { item, line } of merged(attempts)) {
    if (line !== undefined) continue;
    if (missing === 0) firstMissing = item.id;
    missing += 1;
  }
  if (total > 0 && missing === 0) return;
  const what =
    total === 0 ? "no manifest yet" : `${missing} without one (the first is ${JSON.stringify(firstMissing)})`;
  throw new IncompleteJobError(
    `export: expected a result for each of ${total} items, got ${what}; wait for the job, or export what is there with --partial`,
    missing,
    total,
  );
}

/** Every item with the result that counts, and the store that its objects are in, in manifest order. @throws as exportLines */
export async function* finishedItems(
  attempts: readonly AttemptResults[],
  options: ExportOptions = {},
): AsyncGenerator<{ readonly item: ManifestItem; readonly line: ResultLine; readonly store: ObjectStore }> {
  if (options.partial !== true) await expectComplete(attempts);
  for await (const { item, line, store } of merged(attempts)) {
    if (line !== undefined) yield { item, line, store };
  }
}

/** The first attempt's items in order, each with the result that counts: done beats failed, later beats earlier. */
async function* merged(
  attempts: readonly AttemptResults[],
): AsyncGenerator<ItemWithResult & { readonly store: ObjectStore }> {
  const [first, ...later] = attempts;
  if (first === undefined) return;
  // Later attempts hold only what had failed, so their lines are few.
  const lines = new Map<string, { readonly line: ResultLine; readonly store: ObjectStore }>();
  for (const attempt of later) {
    for await (const { item, line } of itemsWithResults(attempt)) {
      if (line === undefined || lines.get(item.id)?.line.result.status === "done") continue;
      lines.set(item.id, { line, store: attempt.store });
    }
  }
  for await (const { item, line } of itemsWithResults(first)) {
    const again = line?.result.status === "done" ? undefined : lines.get(item.id);
    yield { item, line, store: first.store, ...again };
  }
}
