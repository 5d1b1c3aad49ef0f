import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { toPixels } from "../../src/image/pixels.ts";
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
