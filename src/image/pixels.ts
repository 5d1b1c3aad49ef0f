// Upright RGB -> the model's input, as transformers' slow BlipImageProcessor and CLIPImageProcessor make it.

import type { ImageSettings, Pixels } from "../stages.ts";
import { decodeImage } from "./decode.ts";
import { type RgbImage, resizeBicubic } from "./resize-bicubic.ts";

/**
 * Image file -> (3, settings.height, settings.width) f32: decoded, upright, resized as the settings say, rescaled and
 * normalised. Equal to transformers' pixel_values bit for bit wherever the decoded levels are.
 * @param frame see decodeImage
 * @throws ImageError
 */
export async function toPixels(bytes: Uint8Array, settings: ImageSettings, frame = 0): Promise<Pixels> {
  return normalise(resized(await decodeImage(bytes, frame), settings), settings);
}

/** The image in the settings' size: squeezed into it, or cut from the middle where a shortest edge is given. */
export function resized(image: RgbImage, { height, width, shortestEdge }: ImageSettings): RgbImage {
  if (shortestEdge === undefined) return resizeBicubic(image, height, width);
  const short = Math.min(image.height, image.width);
  // As transformers: the product first, then the quotient, and what is behind the point is cut off.
  const whole = (side: number) => (side === short ? shortestEdge : Math.trunc((shortestEdge * side) / short));
  const [wholeHeight, wholeWidth] = [whole(image.height), whole(image.width)];
  const top = Math.floor((wholeHeight - height) / 2);
  const left = Math.floor((wholeWidth - width) / 2);
  return resizeBicubic(image, wholeHeight, wholeWidth, { top, left, height, width });
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
