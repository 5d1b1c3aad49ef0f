// A folder for one test file, removed when its tests are over.

import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";

/** Absolute, without symbolic links. */
export function temporaryFolder(): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "blipfleet-test-")));
  after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** All that an async iterable gives. */
export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const entry of source) all.push(entry);
  return all;
}
