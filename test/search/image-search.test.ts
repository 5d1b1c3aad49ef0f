// Searches by codes find what comparing all images finds, with the same scores; damage is found on the way.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { ImageSearch } from "../../src/search/image-search.ts";
import { quantizeVectors } from "../../src/search/int8-vectors.ts";
import { imageScores, type SearchQuery } from "../../src/search/similarity.ts";
import { type ImageIndex, openImageIndex } from "../../src/search/vector-file.ts";
import type { IndexModel } from "../../src/search/vector-file-format.ts";
import { ImageIndexWriter } from "../../src/search/vector-file-writer.ts";
import { unevenVectors, unitVector } from "./some-vectors.ts";

const folder = mkdtempSync(join(tmpdir(), "image-search-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const sizes = { images: 5000, queries: 5, width: 40 };
const model: IndexModel = { ref: "m", digest: "ab".repeat(32), dtype: "f32", queries: 5, width: 40 };
const values = unevenVectors(sizes.images, sizes.queries, sizes.width, 9);

async function write(file: string, type: "f32" | "int8", coded: "always" | "never"): Promise<ImageIndex> {
  const writer = await ImageIndexWriter.create(file, model, type);
  await writer.add(new Uint8Array(type === "int8" ? quantizeVectors(values, 40).buffer : values.buffer));
  const images = Array.from({ length: sizes.images }, (_, i) => ({
    digest: i.toString(16).padStart(64, "0"),
    images: [`/${i}.png`],
  }));
  await writer.commit(images, null, coded);
  return (await openImageIndex(file)) ?? assert.fail("an index");
}

const texts: SearchQuery[] = Array.from({ length: 12 }, (_, i) => [unitVector(40, 100 + i)]);
const example: SearchQuery = Array.from({ length: 5 }, (_, q) =>
  values.subarray((5 * 77 + q) * 40, (5 * 77 + q + 1) * 40),
);
const queries = [...texts, example];

/** The places of the largest scores, by sorting all. */
function sorted(scores: Float32Array, most: number): { score: number; place: number }[] {
  return [...scores]
    .map((score, place) => ({ score, place }))
    .sort((a, b) => b.score - a.score || a.place - b.place)
    .slice(0, most);
}

async function searching<T>(index: ImageIndex, work: (search: ImageSearch) => Promise<T>): Promise<T> {
  const search = new ImageSearch(index);
  try {
    return await work(search);
  } finally {
    await search.close();
  }
}

test("comparing all images, from f32: as sorting all scores would give", async () => {
  const index = await write(join(folder, "plain"), "f32", "never");
  const { found, by, compared } = await searching(index, (search) => search.search(queries, { most: 10 }));
  assert.equal(by, "all images");
  assert.deepEqual(
    compared,
    queries.map(() => sizes.images),
  );
  const scores = imageScores(values, sizes, queries);
  for (const [q, each] of found.entries()) {
    assert.deepEqual(each, sorted(scores.subarray(q * sizes.images, (q + 1) * sizes.images), 10), `query ${q}`);
  }
  assert.equal(found.at(-1)?.[0]?.place, 77, "the image is most like itself");
  assert.ok(Math.abs((found.at(-1)?.[0]?.score ?? 0) - 1) < 1e-6);
});

for (const type of ["f32", "int8"] as const) {
  test(`by codes, from ${type}: the same images and scores, most of the images left out`, async () => {
    const index = await write(join(folder, `coded-${type}`), type, "always");
    await searching(index, async (search) => {
      const exact = await search.search(queries, { most: 10, exact: true });
      const coded = await search.search(queries, { most: 10 });
      assert.deepEqual([exact.by, coded.by], ["all images", "codes"]);
      assert.deepEqual(coded.found, exact.found);
      assert.ok(
        coded.compared.every((count) => count >= 40 && count < sizes.images / 2),
        `${coded.compared}`,
      );
      // With so few to begin with, what is missing from them is found only if every bound holds.
      const few = await search.search(queries, { most: 2 });
      assert.deepEqual(
        few.found,
        exact.found.map((each) => each.slice(0, 2)),
      );
      const many = await search.search(queries.slice(0, 1), { most: 79 });
      assert.equal(many.by, "all images", "where codes leave too little out");
    });
  });
}

test("images that are nearly alike are all compared: nothing is cut off by their number", async () => {
  const center = unitVector(40, 5);
  const near = values.map((value, i) => value * 1e-4 + (center[i % 40] ?? 0));
  for (let from = 0; from < near.length; from += 40) {
    const length = Math.hypot(...near.subarray(from, from + 40));
    for (let i = from; i < from + 40; i++) near[i] = (near[i] ?? 0) / length;
  }
  const file = join(folder, "near");
  const writer = await ImageIndexWriter.create(file, model, "f32");
  await writer.add(new Uint8Array(near.buffer));
  const digests = Array.from({ length: sizes.images }, (_, i) => i.toString(16).padStart(64, "0"));
  await writer.commit(
    digests.map((digest) => ({ digest, images: ["/x"] })),
    null,
    "always",
  );
  const index = (await openImageIndex(file)) ?? assert.fail("an index");
  await searching(index, async (search) => {
    const exact = await search.search(texts, { most: 10, exact: true });
    const coded = await search.search(texts, { most: 10 });
    const hits = coded.found.flatMap((each, q) =>
      each.filter(({ place }) => exact.found[q]?.some((other) => other.place === place)),
    );
    assert.ok(hits.length >= 0.99 * 120, `${hits.length} of 120`);
  });
});

test("damaged codes, vectors and checks are found by the search that meets them", async () => {
  const file = join(folder, "damaged");
  const { stored } = await write(file, "f32", "always");
  const good = readFileSync(file);
  const { codes } = stored;
  if (codes === null) assert.fail("codes");
  for (const [at, message] of [
    [codes.codes + 12345, /got codes of images from \d+ on with another checksum/],
    [codes.factors + 4, /got codes of images from 0 on with another checksum/],
    [codes.checks, /got codes of images from 0 on with another checksum/],
    [stored.vectors + 77 * 800 + 5, /got vectors of image 77 with another checksum/],
    [stored.checks + 77 * 8, /got vectors of image 77 with another checksum/],
  ] as const) {
    const bytes = Buffer.from(good);
    bytes[at] = (bytes[at] ?? 0) ^ 64;
    writeFileSync(file, bytes);
    const index = (await openImageIndex(file)) ?? assert.fail("an index");
    await searching(index, async (search) => {
      const result = search.search([example], { most: 10 });
      await assert.rejects(result, { name: "ImageIndexError", message });
    });
  }
});

test("a file that was replaced meanwhile is refused; an aborted search ends with its reason", async () => {
  const file = join(folder, "replaced");
  const index = await write(file, "f32", "never");
  writeFileSync(file, readFileSync(file));
  await searching(index, async (search) => {
    await assert.rejects(search.search(texts, { most: 10 }), /expected it to stay as it was while it is searched/);
  });
  const again = (await openImageIndex(file)) ?? assert.fail("an index");
  const stop = new AbortController();
  await searching(again, async (search) => {
    const result = search.search(texts, { most: 10, signal: stop.signal });
    stop.abort(new Error("enough"));
    await assert.rejects(result, /enough/);
  });
});

test("an index without images has no results", async () => {
  const file = join(folder, "none");
  const writer = await ImageIndexWriter.create(file, model, "f32");
  await writer.commit([], null, "always");
  const index = (await openImageIndex(file)) ?? assert.fail("an index");
  const { found } = await searching(index, (search) => search.search(texts.slice(0, 1), { most: 10 }));
  assert.deepEqual(found, [[]]);
});
