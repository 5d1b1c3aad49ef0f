import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import path from "node:path";
import { test } from "node:test";
import sharp from "sharp";
import { normalise } from "../../src/image/pixels.ts";
import { type RgbImage, resizeBicubic } from "../../src/image/resize-bicubic.ts";
import { fixtures, readJson } from "../fixture-files.ts";

interface ResizeCase {
  /** null: made by `pattern`. */
  readonly source: string | null;
  readonly from?: readonly [number, number];
  readonly height: number;
  readonly width: number;
  readonly file?: string;
  readonly rgb_sha256?: string;
  readonly pixels_sha256?: string;
}

const { cases } = await readJson<{ cases: ResizeCase[] }>("resize/expected.json");
const clip = {
  resample: "bicubic",
  rescale: 1 / 255,
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
} as const;

async function open(file: string): Promise<RgbImage> {
  const { data, info } = await sharp(path.join(fixtures, "resize", file))
    .raw()
    .toBuffer({ resolveWithObject: true });
  assert.equal(info.channels, 3);
  return { width: info.width, height: info.height, data };
}

/** The formula of make-images.py. */
function pattern(height: number, width: number): RgbImage {
  const data = new Uint8Array(height * width * 3);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++, at++) data[at] = (x * 7 + y * 13 + c * 29 + x * y) % 256;
    }
  }
  return { width, height, data };
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

for (const expected of cases) {
  const { source, height, width } = expected;
  test(`resizes ${source ?? `a pattern of ${expected.from?.join(" x ")}`} to ${height} x ${width} as Pillow`, async () => {
    const [fromHeight, fromWidth] = expected.from ?? [0, 0];
    const image = source === null ? pattern(fromHeight, fromWidth) : await open(source);
    const resized = resizeBicubic(image, height, width);
    assert.deepEqual([resized.height, resized.width], [height, width]);
    if (expected.file !== undefined) {
      const wanted = (await open(expected.file)).data;
      const wrong = wanted.findIndex((level, index) => level !== resized.data[index]);
      assert.equal(wrong, -1, `level ${wrong}: expected ${wanted[wrong]}, got ${resized.data[wrong]}`);
    } else {
      assert.equal(sha256(resized.data), expected.rgb_sha256);
    }
    if (expected.pixels_sha256 !== undefined) {
      const { data } = normalise(resized, { height, width, ...clip });
      assert.equal(sha256(new Uint8Array(data.buffer)), expected.pixels_sha256, "pixel_values of transformers");
    }
  });
}

test("a window is that part of the whole, in either order of the passes", () => {
  for (const [from, to] of [
    [
      [40, 31],
      [90, 70],
    ],
    [
      [97, 60],
      [20, 43],
    ],
    [
      [60, 97],
      [43, 20],
    ],
    [
      [50, 50],
      [50, 31],
    ],
    [
      [50, 50],
      [31, 50],
    ],
    [
      [33, 41],
      [33, 41],
    ],
  ] as const) {
    const image = pattern(from[0], from[1]);
    const [height, width] = to;
    const whole = resizeBicubic(image, height, width);
    for (const window of [
      { top: 0, left: 0, height, width },
      { top: 3, left: 5, height: 11, width: 9 },
      { top: height - 8, left: 0, height: 8, width: 1 },
      { top: 0, left: width - 7, height: 1, width: 7 },
    ]) {
      const part = resizeBicubic(image, height, width, window);
      assert.deepEqual([part.height, part.width], [window.height, window.width]);
      const wanted = Array.from({ length: window.height }, (_, y) => {
        const start = ((window.top + y) * width + window.left) * 3;
        return [...whole.data.subarray(start, start + window.width * 3)];
      });
      assert.deepEqual([...part.data], wanted.flat(), `${from} to ${to}, ${JSON.stringify(window)}`);
    }
  }
});
