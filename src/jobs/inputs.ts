// What a user points a job at, as the items of a manifest: a folder, a text list, JSONL or CSV.
//
// Ids. An id that the user gives must be unique. An item without one gets its image as given (for a folder: its path
// below the folder); where that is taken, the first free of image#2, image#3, … So a list may repeat images.
// Images. Relative paths start at the folder that holds the list. A file that does not exist is not a mistake of the
// list: that item fails later, alone. A path outside the roots is.

import { opendir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import type { ManifestItem } from "../messages/job.ts";
import { errorCode, ManifestError, PathError } from "./errors.ts";
import { type InputRecord, recordsOf, shorten, type TextField } from "./input-lines.ts";
import { allowedRoots, type RootCheck, rootCheck, toPath } from "./roots.ts";
import { byCodeUnits } from "./store.ts";

export interface InputOptions {
  /** Default: the roots of the environment. */
  readonly roots?: RootCheck;
  /** Whether items have texts: default none, and a list's `text` is a field like any other. */
  readonly texts?: "none" | "optional" | "required";
  /** The field of a list that they are in. Default "text". */
  readonly textField?: TextField;
  /** Folder that relative paths of a list start at. Default: the list's own. */
  readonly imageFolder?: string;
  readonly signal?: AbortSignal;
  /** Called now and then with the number of records read so far, for heartbeats. */
  readonly onProgress?: (records: number) => void;
}

/** What sharp decodes, by file name ending. */
const imageEnding = /\.(jpe?g|png|webp|avif|gif|tiff?)$/i;

/** Problems that a message spells out; the others are counted. */
const problemsShown = 20;

/** Records whose paths are resolved at the same time. */
const batchSize = 256;

const longestId = 1000;

/**
 * The items of an input in its order, indices from 0. Memory does not grow with the input but for the ids seen.
 * The whole input is read before its problems are thrown, so whoever stores the items must drop them when this throws.
 * @param source path or file: URI of a folder or list
 * @throws ManifestError with all problems by line; when there is no item; when the list's format is unknown
 * @throws PathError when the input itself is outside the roots or missing
 */
export async function* readInput(source: string, options: InputOptions = {}): AsyncGenerator<ManifestItem> {
  const roots = options.roots ?? rootCheck(allowedRoots());
  const path = await roots.resolveInside(toPath(source, process.cwd()));
  const found = await stat(path).then(
    (each) => each,
    (error: unknown) => {
      const got = errorCode(error) === "ENOENT" ? "nothing there" : errorCode(error);
      throw new PathError(
        `input: expected a folder of images, or a .txt, .jsonl or .csv list, at ${path}, got ${got}; check the path`,
        { cause: error },
      );
    },
  );
  const isFolder = found.isDirectory();
  if (!isFolder && !found.isFile()) {
    throw new PathError(`input: expected a folder or list at ${path}, got a device, pipe or socket`);
  }
  const folder = isFolder ? path : toPath(options.imageFolder ?? dirname(path), process.cwd());
  const { texts = "none", textField = "text", signal } = options;
  const lines = { texts: texts !== "none", textField, ...(signal && { signal }) };
  const records = isFolder ? folderRecords(path, signal) : recordsOf(path, lines);
  const where = isFolder ? (line: number) => `image ${line}` : (line: number) => `line ${line}`;
  const ids = new Ids();
  const problems: string[] = [];
  let problemCount = 0;
  let index = 0;
  let read = 0;

  for await (const batch of inBatches(records, batchSize)) {
    options.signal?.throwIfAborted();
    const uris = await Promise.all(batch.map((record) => uriOf(record, folder, roots)));
    for (const [i, record] of batch.entries()) {
      const uri = uris[i] ?? { problem: "expected a path, got none" };
      const id = "problem" in record ? record : ids.take(record, where);
      const known = [record, uri, id].flatMap((part) => ("problem" in part ? [part.problem] : []));
      const problem = texts === "required" ? (known[0] ?? textProblem(record, textField)) : known[0];
      if (problem !== undefined) {
        problemCount += 1;
        if (problems.length < problemsShown) problems.push(`${where(record.line)}: ${problem}`);
      } else if (problemCount === 0 && !("problem" in record) && "uri" in uri && "id" in id) {
        const item = { index, id: id.id, image: record.image, uri: uri.uri, prompt: record.prompt };
        yield texts === "none" ? item : { ...item, texts: record.texts };
        index += 1;
      }
    }
    read += batch.length;
    options.onProgress?.(read);
  }
  if (problemCount > 0) throw problemsError(source, problems, problemCount);
  if (index === 0) {
    const wanted = isFolder ? "at least one image (.jpg, .png, .webp, .avif, .gif, .tiff)" : "at least one image";
    throw new ManifestError(`${source}: expected ${wanted}, got none; the job would be empty`);
  }
}

function textProblem(record: InputRecord, field: TextField): string | undefined {
  if ("problem" in record || record.texts.length > 0) return undefined;
  return `expected "${field}" or "${field}s" to compare the image with, got neither; or give every item the same with --${field}`;
}

function problemsError(source: string, problems: readonly string[], count: number): ManifestError {
  const more = count > problems.length ? [`… and ${count - problems.length} more`] : [];
  const list = [...problems, ...more].map((line) => `\n  ${line}`).join("");
  return new ManifestError(
    `${basename(source)}: expected every line to name an image, got ${count} ${count === 1 ? "problem" : "problems"}; nothing was submitted${list}`,
    problems,
    count,
  );
}

async function uriOf(
  record: InputRecord,
  folder: string,
  roots: RootCheck,
): Promise<{ readonly uri: string } | { readonly problem: string }> {
  if ("problem" in record) return record;
  try {
    return { uri: pathToFileURL(await roots.resolveInside(toPath(record.image, folder))).href };
  } catch (error) {
    if (error instanceof PathError) return { problem: error.message };
    throw error;
  }
}

async function* folderRecords(root: string, signal?: AbortSignal): AsyncGenerator<InputRecord> {
  let line = 0;
  for await (const image of imagesBelow(root, signal)) {
    line += 1;
    yield { line, id: undefined, image, prompt: null, texts: [] };
  }
}

/**
 * Every image below a folder, as paths relative to it: depth first, each folder's entries in order of code units, hidden
 * ones left out.
 */
export async function* imagesBelow(root: string, signal?: AbortSignal, below = ""): AsyncGenerator<string> {
  signal?.throwIfAborted();
  const entries: { name: string; isFolder: boolean }[] = [];
  for await (const entry of await opendir(join(root, below))) {
    if (entry.name.startsWith(".")) continue;
    if (entry.isDirectory()) entries.push({ name: entry.name, isFolder: true });
    // Links are taken as files: where they lead is checked like any path; links to folders are not entered.
    else if (imageEnding.test(entry.name)) entries.push({ name: entry.name, isFolder: false });
  }
  entries.sort((a, b) => byCodeUnits(a.name, b.name));
  for (const { name, isFolder } of entries) {
    const relative = below === "" ? name : `${below}/${name}`;
    if (isFolder) yield* imagesBelow(root, signal, relative);
    else yield relative;
  }
}

/** The ids of one input: finds doubles of given ids, makes the others unique. */
class Ids {
  readonly #lines = new Map<string, number>();
  readonly #repeats = new Map<string, number>();

  take(
    record: { readonly line: number; readonly id: string | undefined; readonly image: string },
    where: (line: number) => string,
  ): { readonly id: string } | { readonly problem: string } {
    const wanted = record.id ?? record.image;
    if (wanted.length > longestId) {
      return { problem: `expected an id of at most ${longestId} characters, got ${wanted.length}` };
    }
    const earlier = this.#lines.get(wanted);
    if (earlier !== undefined && record.id !== undefined) {
      return { problem: `expected a new id, got ${JSON.stringify(shorten(wanted))} as on ${where(earlier)}` };
    }
    const id = earlier === undefined ? wanted : this.#firstFree(wanted);
    this.#lines.set(id, record.line);
    return { id };
  }

  #firstFree(image: string): string {
    let repeat = (this.#repeats.get(image) ?? 1) + 1;
    while (this.#lines.has(`${image}#${repeat}`)) repeat += 1;
    this.#repeats.set(image, repeat);
    return `${image}#${repeat}`;
  }
}

async function* inBatches<T>(source: AsyncIterable<T>, size: number): AsyncGenerator<T[]> {
  let batch: T[] = [];
  for await (const entry of source) {
    batch.push(entry);
    if (batch.length === size) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}
