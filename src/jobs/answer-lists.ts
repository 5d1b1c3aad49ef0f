// Answers to choose from, for all workers of a job: kept once by content beside the jobs, and named in its input.

import { pathToFileURL } from "node:url";
import { z } from "zod";
import type { AnswersRef, Committed } from "../messages/job.ts";
import { commitJsonl, readJsonl } from "./jsonl.ts";
import type { Environment } from "./roots.ts";
import { folderStore, openStore, sha256 } from "./store.ts";
import { uploadsFolder } from "./uploads.ts";

/**
 * Keep a list of answers and name it.
 * @returns equal for equal lists
 * @throws StoreError when it cannot be written
 */
export async function keepAnswers(
  answers: readonly string[],
  environment: Environment = process.env,
): Promise<Omit<AnswersRef, "keep">> {
  const folder = uploadsFolder(environment);
  const name = `answers-${sha256(Buffer.from(JSON.stringify(answers)))}.jsonl`;
  return { folder: pathToFileURL(folder).href, ...(await commitJsonl(folderStore(folder), name, answers)) };
}

/** Lists that this process has read, by their digests; a list serves all items of a job. */
const known = new Map<string, Promise<readonly string[]>>();
/** Jobs whose lists are kept at a time. */
const mostKnown = 8;

/** The answers of a list, verified. @throws StoreError when it is missing or was changed */
export function readAnswers({ folder, name, sha256: digest }: AnswersRef): Promise<readonly string[]> {
  const found = known.get(digest) ?? readList(folder, { name, sha256: digest });
  known.delete(digest);
  known.set(digest, found);
  found.catch(() => known.delete(digest));
  for (const oldest of [...known.keys()].slice(0, -mostKnown)) known.delete(oldest);
  return found;
}

function readList(folder: string, list: Committed): Promise<readonly string[]> {
  return readJsonl(openStore(folder), list, z.string());
}
