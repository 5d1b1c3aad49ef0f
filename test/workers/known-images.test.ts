// Reading a large index of known images leaves other work of the thread its turns, and heartbeats.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { mock, test } from "node:test";
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

test("while a large index is read, every activity that waits for it heartbeats, and none does after", async () => {
  const known = pathToFileURL(await writeIndex("slow", 3000)).href;
  const asked = { known, model: identity } as unknown as Asked;
  const plain = ImageList.prototype.at;
  const [beats, others]: [unknown[], unknown[]] = [[], []];
  mock.timers.enable({ apis: ["setInterval"] });
  // Half a second passes with the first line of each turn.
  ImageList.prototype.at = function (place) {
    if (place % 1024 === 0) mock.timers.tick(500);
    return plain.call(this, place);
  };
  const beating = (told: unknown[]) => {
    const environment = new MockActivityEnvironment();
    environment.on("heartbeat", (details: unknown) => told.push(details));
    return environment.run(() => knownImages(asked, rootCheck([folder]))) as Promise<ReadonlySet<string>>;
  };
  try {
    const [first, second] = await Promise.all([beating(beats), beating(others)]);
    assert.equal(first, second, "read once");
    assert.equal(first.size, 3000);
    mock.timers.tick(5000);
  } finally {
    ImageList.prototype.at = plain;
    mock.timers.reset();
  }
  assert.deepEqual(beats, [{ reads: known }, { reads: known }, { reads: known }]);
  assert.deepEqual(others, beats);
});
