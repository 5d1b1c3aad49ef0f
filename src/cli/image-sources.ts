// What a command that works in this process is pointed at: image files, folders, and lists as jobs read and write them.

import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ManifestError, PathError } from "../jobs/errors.ts";
import { type InputRecord, isList, recordsOf } from "../jobs/input-lines.ts";
import { imagesBelow } from "../jobs/inputs.ts";
import { toPath } from "../jobs/roots.ts";
import { UsageError } from "./errors.ts";

/** An image that a command is to work on. */
export interface SourceImage {
  /** As it was given, for the output; of a folder, the path to it. */
  readonly image: string;
  /** Where to read it. */
  readonly path: string;
  readonly prompt: string | null;
  /** A list's `text` or `texts`, where they were asked for. */
  readonly texts: readonly string[];
}

export interface SourceOptions {
  /** Read the texts of lists, too. Default false. */
  readonly texts?: boolean;
  /** Folder that relative paths of lists start at. Default: each list's own. */
  readonly imageFolder?: string | undefined;
}

/** Problems that a message spells out; the others are counted. */
const problemsShown = 20;

/**
 * Images as they are named, of folders every image in them, of lists (.txt, .jsonl, .csv) the image of every line. What is not
 * there fails later as an image, alone.
 * @throws UsageError for a folder or list without images; ManifestError with the lines that name none
 */
export async function sourceImages(sources: readonly string[], options: SourceOptions = {}): Promise<SourceImage[]> {
  const images: SourceImage[] = [];
  for (const source of sources) {
    const found = await stat(source).catch(() => null);
    const isFolder = found?.isDirectory() ?? false;
    if (!isFolder && !(found !== null && isList(source))) {
      images.push(named(source, source));
      continue;
    }
    const before = images.length;
    if (isFolder) {
      for await (const below of imagesBelow(source)) images.push(named(join(source, below), join(source, below)));
    } else {
      images.push(...(await listed(source, options)));
    }
    if (images.length === before) {
      const what = isFolder
        ? "images (.jpg, .png, .webp, .avif, .gif, .tiff), got a folder"
        : "lines that name images, got a list";
      throw new UsageError(`${source}: expected ${what} without any`);
    }
  }
  return images;
}

function named(image: string, path: string): SourceImage {
  return { image, path, prompt: null, texts: [] };
}

async function listed(list: string, { texts = false, imageFolder }: SourceOptions): Promise<SourceImage[]> {
  const images: SourceImage[] = [];
  const problems: string[] = [];
  for await (const record of recordsOf(list, { texts })) {
    const read = imageOf(record, imageFolder ?? dirname(list));
    if ("problem" in read) problems.push(`line ${record.line}: ${read.problem}`);
    else images.push(read);
  }
  if (problems.length === 0) return images;
  const more = problems.length > problemsShown ? [`… and ${problems.length - problemsShown} more`] : [];
  const lines = [...problems.slice(0, problemsShown), ...more].map((line) => `\n  ${line}`).join("");
  throw new ManifestError(
    `${basename(list)}: expected every line to name an image, got ${problems.length} that do not; nothing was done${lines}`,
    problems,
    problems.length,
  );
}

function imageOf(record: InputRecord, folder: string): SourceImage | { readonly problem: string } {
  if ("problem" in record) return record;
  const { image, prompt, texts } = record;
  try {
    return { image, path: toPath(image, folder), prompt, texts };
  } catch (error) {
    if (error instanceof PathError) return { problem: error.message };
    throw error;
  }
}
