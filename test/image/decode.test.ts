import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import sharp from "sharp";
import { decodeImage, maxImagePixels } from "../../src/image/decode.ts";
import { ImageError } from "../../src/image/image-error.ts";
import { fixtures, readJson } from "../fixture-files.ts";

interface DecodeCase {
  readonly file: string;
  readonly mode: string;
  readonly width: number;
  readonly height: number;
  readonly rgb_sha256: string;
  /** Differences of a level from Pillow's: 0 everywhere but in AVIF. */
  readonly tolerance: { readonly largest: number; readonly mean: number };
}

const folder = path.join(fixtures, "decode");
const { cases } = await readJson<{ cases: DecodeCase[] }>("decode/expected.json");

for (const expected of cases) {
  test(`decodes ${expected.file} (${expected.mode}) to Pillow's RGB`, async () => {
    const image = await decodeImage(await readFile(path.join(folder, expected.file)));
    assert.deepEqual([image.width, image.height], [expected.width, expected.height]);
    const wanted = await sharp(path.join(folder, "rgb", `${expected.file}.png`))
      .raw()
      .toBuffer();
    assert.equal(createHash("sha256").update(wanted).digest("hex"), expected.rgb_sha256, "the expectation itself");
    assert.equal(image.data.length, wanted.length);
    let largest = 0;
    let total = 0;
    for (const [index, level] of wanted.entries()) {
      const difference = Math.abs(level - (image.data[index] ?? Number.NaN));
      largest = Math.max(largest, difference);
      total += difference;
    }
    const report = `largest difference ${largest}, mean ${total / wanted.length}`;
    assert.ok(largest <= expected.tolerance.largest && total / wanted.length <= expected.tolerance.mean, report);
  });
}

/** A PNG header for any size, without the pixels to go with it. */
function pngOf(width: number, height: number): Buffer {
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0]);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  const chunk = (kind: string, body: Buffer) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length);
    const checksum = Buffer.alloc(4);
    checksum.writeUInt32BE(crc32(Buffer.concat([Buffer.from(kind), body])));
    return Buffer.concat([length, Buffer.from(kind), body, checksum]);
  };
  const signature = Buffer.from("\x89PNG\r\n\x1a\n", "latin1");
  const data = chunk("IDAT", deflateSync(Buffer.alloc(100)));
  return Buffer.concat([signature, chunk("IHDR", header), data, chunk("IEND", Buffer.alloc(0))]);
}

function crc32(bytes: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  }
  return (value ^ 0xffffffff) >>> 0;
}

async function refusal(bytes: Uint8Array): Promise<string> {
  const error = await decodeImage(bytes).then(
    (image) => assert.fail(`decoded to ${image.width} x ${image.height}`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof ImageError);
  assert.equal(error.name, "ImageError");
  assert.doesNotMatch(error.message, /\n/);
  return error.message;
}

test("refuses zero bytes", async () => {
  assert.match(await refusal(new Uint8Array(0)), /zero bytes/);
});

test("refuses what is not an image, documents that sharp would read included", async () => {
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>';
  for (const text of ["hello", svg, "%PDF-1.4", "\0\0\0\0", `<?xml version="1.0"?>${svg}`]) {
    assert.match(await refusal(Buffer.from(text)), /expected JPEG, PNG, WebP, AVIF, GIF or TIFF/);
  }
});

test("refuses a 50,000 x 50,000 image by its header, in little time and memory", async () => {
  const before = process.memoryUsage().rss;
  assert.match(await refusal(pngOf(50_000, 50_000)), /178956970 pixels, got 50000 x 50000/);
  assert.ok(process.memoryUsage().rss - before < 200 * 2 ** 20);
});

test("the pixel limit is on the product of the sides", async () => {
  assert.ok(13_377 ** 2 < maxImagePixels && 13_378 ** 2 > maxImagePixels);
  assert.match(await refusal(pngOf(13_378, 13_378)), /at most 178956970 pixels/);
  assert.match(await refusal(pngOf(13_377, 40)), /whole png file/); // within the limit, but its data ends early
});

for (const file of [
  "rgb.png",
  "rgb.jpg",
  "progressive.jpg",
  "lossless.webp",
  "lossy.webp",
  "palette.gif",
  "lzw.tiff",
]) {
  test(`refuses ${file} cut at any of ten places`, async () => {
    const whole = await readFile(path.join(folder, file));
    for (let part = 1; part <= 10; part++) {
      const length = Math.floor((whole.length * part * 0.9) / 10);
      assert.match(await refusal(whole.subarray(0, length)), /^image: expected/, `${length} of ${whole.length} bytes`);
    }
  });
}

test("the reason is told once, however often libvips says it", async () => {
  const whole = await readFile(path.join(folder, "rgb.jpg"));
  const message = await refusal(whole.subarray(0, 20));
  assert.equal(message.split("contains no image").length, 2, message);
});

test("damaged files of every kind decode or are refused, and nothing else happens", async () => {
  let state = 1;
  const random = () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state / 2 ** 32;
  };
  const outcomes = { decoded: 0, refused: 0 };
  for (const { file } of cases) {
    const whole = await readFile(path.join(folder, file));
    for (let attempt = 0; attempt < 12; attempt++) {
      const damaged = Buffer.from(whole);
      // Cubes of a random number: most damage is near the start, where the headers are.
      for (let n = 0; n <= attempt % 4; n++) damaged[Math.floor(random() ** 3 * damaged.length)] = random() * 256;
      await decodeImage(damaged).then(
        () => outcomes.decoded++,
        (error: unknown) => {
          assert.ok(error instanceof ImageError, `${file}: ${error}`);
          outcomes.refused++;
        },
      );
    }
  }
  assert.ok(outcomes.decoded > 50 && outcomes.refused > 50, JSON.stringify(outcomes));
});

test("a view into a larger buffer is read from its own offset", async () => {
  const whole = await readFile(path.join(folder, "rgb.png"));
  const larger = Buffer.concat([Buffer.alloc(13, 7), whole, Buffer.alloc(5, 7)]);
  const image = await decodeImage(new Uint8Array(larger.buffer, larger.byteOffset + 13, whole.length));
  assert.deepEqual([image.width, image.height], [45, 31]);
});
