// Upright RGB -> the model's input, as transformers' slow BlipImageProcessor makes it.

import type { ImageSettings, Pixels } from "../stages.ts";
import { decodeImage } from "./decode.ts";
import { type RgbImage, resizeBicubic } from "./resize-bicubic.ts";

/**
 * Image file -> (3, settings.height, settings.width) f32: decoded, upright, resized without keeping the aspect ratio,
 * rescaled and normalised. Equal to transformers' pixel_values bit for bit wherever the decoded levels are.
 * @throws ImageError
 */
export async function toPixels(bytes: Uint8Array, settings: ImageSettings): Promise<Pixels> {
  return normalise(resizeBicubic(await decodeImage(bytes), settings.height, settings.width), settings);
}

/** (level * rescale - mean) / std per channel, planes instead of triples; every step is rounded to f32. */
export function normalise(image: RgbImage, settings: ImageSettings): Pixels {
  const { width, height, data } = image;
  const plane = width * height;
  const result = new Float32Array(3 * plane);
  for (let channel = 0; channel < 3; channel++) {
    const mean = Math.fround(settings.mean[channel] ?? 0);
    const std = Math.fround(settings.std[channel] ?? 1);
    const values = Float32Array.from({ length: 256 }, (_, level) => {
      const rescaled = Math.fround(level * settings.rescale);
      return Math.fround(Math.fround(rescaled - mean) / std);
    });
    for (let i = 0; i < plane; i++) result[channel * plane + i] = values[data[i * 3 + channel] as number] as number;
  }
  return { data: result, height, width };
}
