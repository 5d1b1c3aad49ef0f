// Reading a large index of known images leaves other work of the thread its turns, and heartbeats.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { MockActivityEnvironment } from "@temporalio/testing";
import { rootCheck } from "../../src/jobs/roots.ts";
import type { Asked } from "../../src/messages/job.ts";
import { ImageIndexWriter } from "../../src/search/vector-file-writer.ts";
import { knownImages } from "../../src/workers/activities/known-images.ts";
import { temporaryFolder } from "../jobs/temporary-folder.ts";

const folder = temporaryFolder();
const identity = { ref: "m", digest: "ab".repeat(32), dtype: "f32" } as const;
const model = { ...identity, queries: 1, width: 2 } as const;

function digestOf(image: number): string {
  return createHash("sha256").update(String(image)).digest("hex");
}

async function writeIndex(name: string, images: number): Promise<string> {
  const file = join(folder, name);
  const writer = await ImageIndexWriter.create(file, model);
  await writer.add(new Uint8Array(images * writer.imageBytes));
  await writer.commit(
    Array.from({ length: images }, (_, i) => ({ digest: digestOf(i), images: [`${i}.png`] })),
    null,
  );
  return file;
}

/** Turns of the event loop while the index is read. */
async function turnsOf(file: string): Promise<{ readonly turns: number; readonly known: ReadonlySet<string> }> {
  let turns = 0;
  let reads = true;
  const count = () => {
    turns++;
    if (reads) setImmediate(count);
  };
  setImmediate(count);
  const asked = { known: pathToFileURL(file).href, model: identity } as unknown as Asked;
  const read = () => knownImages(asked, rootCheck([folder]));
  const known = (await new MockActivityEnvironment().run(read)) as ReadonlySet<string>;
  reads = false;
  return { turns, known };
}

test("a large index is read in many turns", async () => {
  const images = 16 * 1024;
  const [few, many] = [await writeIndex("few", 3), await writeIndex("many", images)];
  const { turns: least, known: three } = await turnsOf(few);
  assert.deepEqual([...three].sort(), [0, 1, 2].map(digestOf).sort());
  const { turns, known } = await turnsOf(many);
  assert.equal(known.size, images);
  assert.ok(turns >= least + 10, `${turns} turns for ${images} images, ${least} for 3`);
});
