// What a run that makes a new version of an index keeps beside it: the vectors so far, and a journal of the images that are
// new, one line each once its vectors are written. A run that is killed leaves both, and the next run goes on from them.

import { randomBytes } from "node:crypto";
import { type FileHandle, open, readdir, readFile, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import {
  checkOf,
  format,
  headerBytes,
  type IndexedImage,
  type IndexModel,
  imageBytesOf,
  imageLine,
  type VectorType,
} from "./vector-file-format.ts";

const journalLine = imageLine.extend({ check: z.string() });

/** Those of this process: they are at work. */
const own = new Set<string>();

/** The open files of an unfinished version. */
export interface UnfinishedVersion {
  readonly part: string;
  readonly vectors: FileHandle;
  readonly journal: FileHandle;
}

/** Begin one beside `file`. Names have this machine and process, by which those that nobody works on are known. */
export async function beginVersion(file: string, model: IndexModel, type: VectorType): Promise<UnfinishedVersion> {
  const part = join(dirname(file), `${prefixOf(file)}${process.pid}.${randomBytes(4).toString("hex")}.part`);
  own.add(part);
  const vectors = await open(part, "w+");
  const journal = await open(journalOf(part), "w");
  await journal.write(`${JSON.stringify(headOf(model, type))}\n`);
  return { part, vectors, journal };
}

/** Close it, and leave its files or remove them. */
export async function endVersion({ part, vectors, journal }: UnfinishedVersion, keep: boolean): Promise<void> {
  await vectors.close();
  await journal.close();
  own.delete(part);
  if (!keep) await removeVersion(part);
}

/** Remove what an unfinished version left. */
export async function removeVersion(part: string): Promise<void> {
  await rm(part, { force: true });
  await rm(journalOf(part), { force: true });
}

/** One line of a journal. */
export function journalEntry(image: IndexedImage, vectors: Uint8Array): string {
  return `${JSON.stringify({ ...image, check: hexCheck(vectors) })}\n`;
}

/** Unfinished versions of an index by runs that are gone, of the same model and type. */
export async function abandonedVersions(file: string, model: IndexModel, type: VectorType): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readdir(dirname(file))) {
    if (!name.startsWith(prefixOf(file))) continue;
    const pid = /^(\d+)\.[0-9a-f]{8}\.part$/.exec(name.slice(prefixOf(file).length))?.[1];
    const part = join(dirname(file), name);
    if (pid === undefined || own.has(part) || isRunning(Number(pid))) continue;
    if ((await linesOf(part))[0] === JSON.stringify(headOf(model, type))) found.push(part);
  }
  return found;
}

/** The new images of an unfinished version, up to the first that is not whole. */
export async function* imagesIn(
  part: string,
  model: IndexModel,
  type: VectorType,
): AsyncGenerator<{ readonly image: IndexedImage; readonly vectors: Uint8Array }> {
  const imageBytes = imageBytesOf({ ...model, type });
  const [, ...lines] = await linesOf(part);
  const handle = await open(part, "r");
  try {
    for (const [i, line] of lines.entries()) {
      const read = journalLine.safeParse(parsed(line));
      if (!read.success) return;
      const vectors = Buffer.alloc(imageBytes);
      const { bytesRead } = await handle.read(vectors, 0, imageBytes, headerBytes + i * imageBytes);
      const { check, ...image } = read.data;
      if (bytesRead !== imageBytes || hexCheck(vectors) !== check) return;
      yield { image, vectors };
    }
  } finally {
    await handle.close();
  }
}

function prefixOf(file: string): string {
  return `.${basename(file)}.${hostname()}.`;
}

function journalOf(part: string): string {
  return `${part}.images`;
}

async function linesOf(part: string): Promise<string[]> {
  return (await readFile(journalOf(part), "utf8").catch(() => "")).split("\n");
}

/** The first line of a journal: whose vectors these are. */
function headOf({ digest, dtype, settings, queries, width }: IndexModel, type: VectorType): object {
  return { format, digest, dtype, ...(settings && { settings }), queries, width, type };
}

/** Another process of this machine. One with this process's id was an earlier one. */
function isRunning(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}

function hexCheck(vectors: Uint8Array): string {
  return Buffer.from(checkOf(vectors)).toString("hex");
}
