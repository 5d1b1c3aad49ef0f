// Where the committed fixtures are, from wherever the tests were built.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";

function packageRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(path.join(folder, "package.json"))) folder = path.dirname(folder);
  return folder;
}

export const fixtures: string = path.join(packageRoot(), "test", "fixtures");

/** A JSON file below test/fixtures; the caller names its type. */
export async function readJson<T>(file: string): Promise<T> {
  return JSON.parse(await readFile(path.join(fixtures, file), "utf8")) as T;
}
