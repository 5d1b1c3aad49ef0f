// Objects of JSON lines in a job's folder, checked against a schema when they are read back.

import type { z } from "zod";
import type { Committed } from "../messages/job.ts";
import { StoreError } from "./errors.ts";
import type { ObjectStore } from "./store.ts";

/** Commit rows as one object of JSON lines, first writer wins. Equal rows give equal bytes. */
export async function commitJsonl(store: ObjectStore, name: string, rows: readonly unknown[]): Promise<Committed> {
  return store.commit(name, Buffer.from(rows.map((row) => `${JSON.stringify(row)}\n`).join(""), "utf8"));
}

/**
 * The rows of a committed object.
 * @throws StoreError when it is missing, was changed, or a row does not fit the schema.
 */
export async function readJsonl<T>(store: ObjectStore, committed: Committed, schema: z.ZodType<T>): Promise<T[]> {
  const text = (await store.read(committed.name, committed.sha256)).toString("utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line, i) => parseRow(line, `${committed.name}:${i + 1}`, schema));
}

/** One object of JSON. @throws StoreError as readJsonl. */
export async function readJson<T>(store: ObjectStore, committed: Committed, schema: z.ZodType<T>): Promise<T> {
  return parseRow((await store.read(committed.name, committed.sha256)).toString("utf8"), committed.name, schema);
}

function parseRow<T>(text: string, where: string, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new StoreError(`${where}: expected JSON, got text that is not`, { cause: error });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new StoreError(
    `${where}: expected the form that this version writes, got ${issue?.message ?? "another"} at "${issue?.path.join(".") ?? ""}"`,
    { cause: parsed.error },
  );
}
