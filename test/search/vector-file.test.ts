// Indexes of images as files: what is written is read, in pieces; what is damaged, foreign or of another model is refused.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { codeSizes, Encoder } from "../../src/search/codes.ts";
import { expectModel, expectType, openImageIndex } from "../../src/search/vector-file.ts";
import type { IndexModel } from "../../src/search/vector-file-format.ts";
import { ImageIndexWriter, isCoded, type WhenCoded } from "../../src/search/vector-file-writer.ts";
import { packF16, randomValues } from "../kernels/harness.ts";

const folder = mkdtempSync(join(tmpdir(), "vector-file-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const model: IndexModel = { ref: "org/model", digest: "ab".repeat(32), dtype: "f32", queries: 3, width: 5 };

function imageOf(i: number) {
  return { digest: i.toString(16).padStart(64, "0"), images: [`/images/${i} é "x".png`] };
}

/** Indexes `count` images of random vectors. @returns their values */
async function write(
  file: string,
  count: number,
  of: IndexModel = model,
  coded: WhenCoded = "auto",
): Promise<Float32Array> {
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
    coded,
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
    [...index.images],
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
  await assert.rejects(writer.add(new Uint8Array(56)), /expected vectors of 60 bytes an image, got 56/);
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
  await assert.rejects(spoilt(flip(4096 + 3 * 60)), damaged); // the first check
  await assert.rejects(spoilt(flip(4096 + 3 * 60 + 3 * 8 - 1)), damaged); // the last one
  await assert.rejects(spoilt(flip(good.length - 10)), damaged); // the list of images
  await assert.rejects(
    spoilt((bytes) => bytes.subarray(0, bytes.length - 4)),
    damaged,
  );
  await assert.rejects(
    spoilt((bytes) => Buffer.from(bytes.toString("latin1").replace('"dtype":"f32"', '"dtype":"f16"'), "latin1")),
    damaged,
  );
  await assert.rejects(
    spoilt((bytes) => Buffer.from(bytes.toString("latin1").replace("index 2", "index 1"), "latin1")),
    /expected a blipfleet image index 2, got a blipfleet image index 1; delete it and index the images again/,
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
    { settings: { imageSize: 364, behaviour: "lavis" } },
  ];
  for (const change of differences) {
    assert.throws(() => expectModel(given, { ...model, ref: "mine", ...change }), {
      name: "ImageIndexError",
      message:
        /^x\.index: expected an index made with mine \(\w{12}\) as f\d\d( with --image-size 364 --behaviour lavis)?, got one made with org\/model \(abababababab\) as f32; use/,
    });
  }
});

test("vectors of another way of storing are refused by name", () => {
  const given = { file: "x.index", stored: { ...storedOf, type: "int8" as const } };
  expectType(given, "int8");
  assert.throws(() => expectType(given, "f32"), {
    name: "ImageIndexError",
    message:
      /^x\.index: expected an index with vectors in f32, got one in int8; leave --vectors out, or use another file$/,
  });
});

const storedOf = {
  ...{ file: "/x.index", version: null, images: 0, queries: 1, width: 1 },
  ...{ vectors: 0, checks: 0, codes: null },
};

test("int8: each vector's direction, in a quarter of the room", async () => {
  const file = join(folder, "whole");
  const writer = await ImageIndexWriter.create(file, model, "int8");
  assert.equal(writer.imageBytes, 15);
  await writer.add(new Uint8Array(Int8Array.of(127, 0, 0, 0, 0, -3, 4, 0, 0, 0, 0, 0, 0, 0, 0).buffer));
  await writer.commit([imageOf(0)], null);
  const index = (await openImageIndex(file)) ?? assert.fail("an index");
  assert.equal(index.stored.type, "int8");
  const { values } = await valuesOf(file);
  const expected = [1, 0, 0, 0, 0, -0.6, 0.8, 0, 0, 0, 0, 0, 0, 0, 0];
  for (const [i, value] of values.entries()) assert.ok(Math.abs(value - (expected[i] ?? 9)) < 1e-7, `${values}`);
});

test("codes are as the basis makes them, small ones too, and are checked with it", async () => {
  const file = join(folder, "coded");
  const of = { ...model, queries: 18, width: 11 };
  const values = await write(file, 40, of, "always");
  const index = (await openImageIndex(file)) ?? assert.fail("an index");
  const { codes } = index.stored;
  const basis = index.basis ?? assert.fail("a basis");
  if (codes === null) assert.fail("codes");
  const { imageCodes, imageFactors } = codeSizes(basis);
  const encoder = new Encoder(basis);
  const bytes = await readFile(file);
  for (let i = 0; i < 40; i++) {
    const [wanted, factors] = [new Uint8Array(imageCodes), new Uint16Array(imageFactors / 2)];
    encoder.encode(values.subarray(i * 198, (i + 1) * 198), wanted, factors);
    const at: number = codes.codes + i * imageCodes;
    assert.deepEqual(new Uint8Array(bytes.subarray(at, at + imageCodes)), wanted, `image ${i}`);
    const from: number = codes.factors + i * imageFactors;
    assert.deepEqual(bytes.subarray(from, from + imageFactors), Buffer.from(factors.buffer));
  }
  assert.deepEqual(await valuesOf(file), { values: [...values], blocks: 1 });
  const basisStart = codes.checks + 8;
  bytes[basisStart + 5] = (bytes[basisStart + 5] ?? 0) ^ 1;
  await writeFile(file, bytes);
  await assert.rejects(openImageIndex(file), /expected an undamaged index, got a basis of codes with another checksum/);
});

test("codes come with size, and only then", () => {
  const large = { ...model, queries: 32, width: 256 };
  assert.equal(isCoded(32767, large, "auto"), false);
  assert.equal(isCoded(32768, large, "auto"), true);
  assert.equal(isCoded(1_000_000, large, "never"), false);
  assert.equal(isCoded(1, model, "always"), true);
  assert.equal(isCoded(0, model, "always"), false);
});

/** A writer in a process of its own that adds images 0 to 4 and is killed. */
async function killedRun(file: string): Promise<void> {
  const script = `
    import { ImageIndexWriter } from ${JSON.stringify(new URL("../../src/search/vector-file-writer.js", import.meta.url))};
    const writer = await ImageIndexWriter.create(${JSON.stringify(file)}, ${JSON.stringify(model)});
    for (let i = 0; i < 5; i++) {
      const digest = i.toString(16).padStart(64, "0");
      await writer.addNew(new Uint8Array(60).fill(i), { digest, images: ["/images/" + i] });
    }
    await writer.add(new Uint8Array(60).fill(77));
    process.kill(process.pid, "SIGKILL");`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: "inherit" });
  const [, signal] = await once(child, "close");
  assert.equal(signal, "SIGKILL");
}

const partsIn = (where: string) => readdirSync(where).filter((name) => name.startsWith("."));

test("what a run that was killed had encoded is taken over, up to what is whole, once", async () => {
  const where = join(folder, "killed");
  mkdirSync(where);
  const file = join(where, "x.index");
  await killedRun(file);
  await killedRun(file);
  assert.equal(partsIn(where).length, 4, "vectors and journal of each");
  const [part = ""] = partsIn(where).filter((name) => name.endsWith(".part"));
  const spoilt = await readFile(join(where, part));
  spoilt[4096 + 60 * 3] = 99;
  await writeFile(join(where, part), spoilt);

  const other = await ImageIndexWriter.create(file, { ...model, digest: "cd".repeat(32) });
  assert.deepEqual(await other.recover(new Set()), [], "nothing of another model");
  await other.abandon();

  const writer = await ImageIndexWriter.create(file, model);
  const known = "1".padStart(64, "0");
  const recovered = await writer.recover(new Set([known]));
  assert.deepEqual(
    recovered.map(({ images }) => images[0]).sort(),
    ["/images/0", "/images/2", "/images/3", "/images/4"],
    "the damaged image from the other run; none twice; none that is known",
  );
  await writer.commit(recovered, null);
  assert.deepEqual(partsIn(where), []);
  const bytes: number[] = [];
  for await (const block of (await openImageIndex(file))?.blocks() ?? []) bytes.push(...block.bytes);
  assert.deepEqual(
    bytes,
    recovered.flatMap(({ images }) => new Array(60).fill(Number(images[0]?.at(-1)))),
  );
});

test("a version that cannot be put in place is left for the next run, one at work is nobody's", async () => {
  const where = join(folder, "left");
  mkdirSync(where);
  const file = join(where, "x.index");
  const late = await ImageIndexWriter.create(file, model);
  await late.addNew(new Uint8Array(60).fill(7), imageOf(7));
  await write(file, 1);
  const meanwhile = await ImageIndexWriter.create(file, model);
  assert.deepEqual(await meanwhile.recover(new Set()), [], "the other one is at work");
  await meanwhile.abandon();
  await assert.rejects(late.commit([imageOf(7)], null), /got another version/);
  const next = await ImageIndexWriter.create(file, model);
  assert.deepEqual(await next.recover(new Set()), [imageOf(7)]);
  await next.abandon();
  assert.deepEqual(partsIn(where), []);
});
