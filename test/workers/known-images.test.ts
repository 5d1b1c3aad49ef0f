// Reading a large index of known images leaves other work of the thread its turns, and heartbeats.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { MockActivityEnvironment } from "@temporalio/testing";
import { rootCheck } from "../../src/jobs/roots.ts";
import type { Asked } from "../../src/messages/job.ts";
import { ImageList } from "../../src/search/image-list.ts";
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

/** Most lines of the index that were parsed in one turn of the event loop. */
async function mostInTurn(file: string): Promise<{ readonly most: number; readonly known: ReadonlySet<string> }> {
  const plain = ImageList.prototype.at;
  let [most, parsed, reads] = [0, 0, true];
  ImageList.prototype.at = function (place) {
    parsed++;
    return plain.call(this, place);
  };
  const turn = () => {
    most = Math.max(most, parsed);
    parsed = 0;
    if (reads) setImmediate(turn);
  };
  turn();
  const asked = { known: pathToFileURL(file).href, model: identity } as unknown as Asked;
  const read = () => knownImages(asked, rootCheck([folder]));
  try {
    const known = (await new MockActivityEnvironment().run(read)) as ReadonlySet<string>;
    return { most: Math.max(most, parsed), known };
  } finally {
    ImageList.prototype.at = plain;
    reads = false;
  }
}

test("a large index is read in many turns", async () => {
  const images = 10_000;
  const { most: all, known: three } = await mostInTurn(await writeIndex("few", 3));
  assert.deepEqual([...three].sort(), [0, 1, 2].map(digestOf).sort());
  assert.equal(all, 3);
  const { most, known } = await mostInTurn(await writeIndex("many", images));
  assert.equal(known.size, images);
  assert.ok(most > 0 && most <= 2048, `${most} of ${images} lines in one turn`);
});
