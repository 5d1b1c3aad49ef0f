// Indexes of images as files: what is written is read, in pieces; what is damaged, foreign or of another model is refused.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { expectModel, ImageIndexWriter, type IndexModel, openImageIndex } from "../../src/search/vector-file.ts";
import { packF16, randomValues } from "../kernels/harness.ts";

const folder = mkdtempSync(join(tmpdir(), "vector-file-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const model: IndexModel = { ref: "org/model", digest: "ab".repeat(32), dtype: "f32", queries: 3, width: 5 };

function imageOf(i: number) {
  return { digest: i.toString(16).padStart(64, "0"), images: [`/images/${i} é "x".png`] };
}

/** Indexes `count` images of random vectors. @returns their values */
async function write(file: string, count: number, of: IndexModel = model): Promise<Float32Array> {
  const size = of.queries * of.width;
  const values = randomValues(count * size, 3);
  const before = await openImageIndex(file);
  const writer = await ImageIndexWriter.create(file, of);
  for (let i = 0; i < count; i++) {
    const own = values.slice(i * size, (i + 1) * size);
    const bytes = of.dtype === "f32" ? new Uint8Array(own.buffer) : new Uint8Array(packF16(own).buffer);
    await writer.add(bytes.subarray(0, writer.imageBytes));
  }
  await writer.commit(
    Array.from({ length: count }, (_, i) => imageOf(i)),
    before?.version ?? null,
  );
  return values;
}

async function valuesOf(file: string): Promise<{ values: number[]; blocks: number }> {
  const index = (await openImageIndex(file)) ?? assert.fail("an index");
  const values: number[] = [];
  let blocks = 0;
  for await (const block of index.blocks()) {
    assert.equal(block.first, values.length / (index.model.queries * index.model.width));
    assert.equal(block.values.length, block.images * index.model.queries * index.model.width);
    for (const value of block.values) values.push(value);
    blocks += 1;
  }
  return { values, blocks };
}

test("what was written is read: model, images, vectors", async () => {
  const file = join(folder, "some");
  assert.equal(await openImageIndex(file), null);
  const values = await write(file, 7);
  const index = (await openImageIndex(file)) ?? assert.fail("an index");
  assert.deepEqual(index.model, model);
  assert.deepEqual(
    index.images,
    Array.from({ length: 7 }, (_, i) => imageOf(i)),
  );
  assert.deepEqual(await valuesOf(file), { values: [...values], blocks: 1 });
  assert.deepEqual(readdirSync(folder), ["some"], "nothing is left beside it");
});

test("no images, halves, and more than one piece", async () => {
  await write(join(folder, "none"), 0);
  assert.deepEqual(await valuesOf(join(folder, "none")), { values: [], blocks: 0 });
  const half = { ...model, dtype: "f16", queries: 1, width: 6 } as const;
  const values = await write(join(folder, "half"), 4, half);
  const read = await valuesOf(join(folder, "half"));
  assert.ok(read.values.every((value, i) => Math.abs(value - (values[i] ?? 9)) <= 2 ** -11));
  const wide = { ...model, queries: 32, width: 1000 };
  const many = await write(join(folder, "wide"), 71, wide);
  const whole = await valuesOf(join(folder, "wide"));
  assert.ok(whole.blocks > 1);
  assert.deepEqual(whole.values, [...many]);
});

test("a new version replaces the old one whole, or not at all", async () => {
  const file = join(folder, "replaced");
  await write(file, 2);
  const old = await readFile(file);
  const given = await ImageIndexWriter.create(file, model);
  await given.add(new Uint8Array(60));
  assert.deepEqual(await readFile(file), old, "before commit nothing is seen");
  await given.abandon();
  assert.deepEqual(await readFile(file), old);
  const { version } = (await openImageIndex(file)) ?? assert.fail("an index");
  const late = await ImageIndexWriter.create(file, model);
  await write(join(folder, "other"), 1);
  await writeFile(file, await readFile(join(folder, "other")));
  await assert.rejects(late.commit([], version), {
    name: "ImageIndexError",
    message: /expected it to stay as it was while images were encoded, got another version; run the command again/,
  });
  assert.deepEqual(await readFile(file), await readFile(join(folder, "other")));
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith(".")),
    [],
  );
});

test("vectors of another size, images without vectors, and folders that are not there are refused", async () => {
  const writer = await ImageIndexWriter.create(join(folder, "refused"), model);
  await assert.rejects(writer.add(new Uint8Array(56)), /expected vectors of 60 bytes, got 56/);
  await assert.rejects(writer.commit([imageOf(1)], null), /expected 0 images as vectors were added, got 1/);
  await writer.abandon();
  await assert.rejects(ImageIndexWriter.create(join(folder, "absent", "x"), model), {
    name: "ImageIndexError",
    message: /x: expected a folder that can be written, got ENOENT/,
  });
});

test("a damaged index is refused wherever it is damaged, another file by what it is", async () => {
  const file = join(folder, "damaged");
  await write(file, 3);
  const good = await readFile(file);
  const spoilt = async (change: (bytes: Buffer) => Buffer | undefined) => {
    const bytes = Buffer.from(good);
    await writeFile(file, change(bytes) ?? bytes);
    return valuesOf(file);
  };
  const flip = (at: number) => (bytes: Buffer) => {
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    return undefined;
  };
  const damaged = { name: "ImageIndexError", message: /expected an undamaged index, got .*; delete it and index/ };
  await assert.rejects(spoilt(flip(4096)), damaged); // the first vector
  await assert.rejects(spoilt(flip(4096 + 3 * 60 - 1)), damaged); // the last one
  await assert.rejects(spoilt(flip(good.length - 10)), damaged); // the list of images
  await assert.rejects(
    spoilt((bytes) => bytes.subarray(0, bytes.length - 4)),
    damaged,
  );
  await assert.rejects(
    spoilt((bytes) => Buffer.from(bytes.toString("latin1").replace('"dtype":"f32"', '"dtype":"f16"'), "latin1")),
    damaged,
  );
  const foreign = {
    name: "ImageIndexError",
    message: /expected an index of images made by `blipfleet index`, got another/,
  };
  await assert.rejects(
    spoilt(() => Buffer.from("not an index, but a text that is longer than a few bytes")),
    foreign,
  );
  await assert.rejects(
    spoilt(() => Buffer.alloc(0)),
    foreign,
  );
  await assert.rejects(openImageIndex(folder), { name: "ImageIndexError", message: /expected a readable index/ });
});

test("vectors of another model, type or size are refused by name", () => {
  const given = { file: "x.index", model };
  expectModel(given, { ...model, ref: "elsewhere/the-same" });
  const differences: Partial<IndexModel>[] = [
    { digest: "cd".repeat(32) },
    { dtype: "f16" },
    { queries: 4 },
    { width: 6 },
  ];
  for (const change of differences) {
    assert.throws(() => expectModel(given, { ...model, ref: "mine", ...change }), {
      name: "ImageIndexError",
      message:
        /^x\.index: expected an index made with mine \(\w{12}\) as f\d\d, got one made with org\/model \(abababababab\) as f32; use/,
    });
  }
});
