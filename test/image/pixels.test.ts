import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { resized, toPixels } from "../../src/image/pixels.ts";
import { clipConfig, clipImageSettings } from "../../src/models/clip-config.ts";
import type { ImageSettings } from "../../src/stages.ts";
import { fixtures, readJson } from "../fixture-files.ts";

interface Preprocessor {
  readonly size: { readonly height: number; readonly width: number };
  readonly rescale_factor: number;
  readonly image_mean: [number, number, number];
  readonly image_std: [number, number, number];
}

for (const model of ["blip2-opt-tiny", "blip2-opt-sharded", "blip2-opt-bf16"]) {
  test(`every image of ${model} gives transformers' pixel_values, bit for bit`, async () => {
    const config = await readJson<Preprocessor>(`models/${model}/preprocessor_config.json`);
    const settings: ImageSettings = {
      height: config.size.height,
      width: config.size.width,
      resample: "bicubic",
      rescale: config.rescale_factor,
      mean: config.image_mean,
      std: config.image_std,
    };
    const { cases } = await readJson<{ cases: { image: string; pixels_sha256: string }[] }>(
      `models/${model}/expected.json`,
    );
    const images = new Map(cases.map((expected) => [expected.image, expected.pixels_sha256]));
    assert.ok(images.size >= 4);
    for (const [image, wanted] of images) {
      const pixels = await toPixels(await readFile(path.join(fixtures, "images", image)), settings);
      assert.equal(pixels.data.length, 3 * settings.height * settings.width);
      assert.equal(createHash("sha256").update(new Uint8Array(pixels.data.buffer)).digest("hex"), wanted, image);
    }
  });
}

for (const name of ["clip-tiny", "clip-half"]) {
  test(`every image gives the pixel_values of ${name}'s processor, bit for bit`, async () => {
    const { vision } = clipConfig(name, await readJson(`clip/${name}/config.json`));
    const settings = clipImageSettings(name, await readJson(`clip/${name}/preprocessor_config.json`), vision.imageSize);
    const { pixels_sha256 } = await readJson<{ pixels_sha256: Record<string, string> }>(`clip/${name}/expected.json`);
    const images = Object.entries(pixels_sha256);
    assert.equal(images.length, 10);
    for (const [image, wanted] of images) {
      const pixels = await toPixels(await readFile(path.join(fixtures, "images", image)), settings);
      assert.equal(pixels.data.length, 3 * settings.height * settings.width);
      assert.equal(createHash("sha256").update(new Uint8Array(pixels.data.buffer)).digest("hex"), wanted, image);
    }
  });
}

test("a very long image is cut before it is resized, and from its middle", () => {
  const long = 200_000;
  const image = { width: long, height: 1, data: new Uint8Array(3 * long).fill(7) };
  image.data.fill(200, (3 * long) / 2 - 30, (3 * long) / 2 + 30);
  const settings = { resample: "bicubic", rescale: 1, mean: [0, 0, 0], std: [1, 1, 1] } as const;
  for (const turned of [image, { ...image, width: 1, height: long }]) {
    const { data, height, width } = resized(turned, { ...settings, height: 32, width: 32, shortestEdge: 32 });
    assert.deepEqual([height, width], [32, 32]);
    assert.ok(data.every((level) => level === 200));
  }
});
