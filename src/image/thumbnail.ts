// A small picture of an image, for people to look at.

import sharp from "sharp";
import { decodeImage } from "./decode.ts";

/** Pixels of the longer side. */
export const thumbnailSide = 256;

/** Bytes of an image file -> a JPEG, upright, at most `thumbnailSide` wide and high. @throws ImageError */
export async function thumbnail(image: Uint8Array): Promise<Uint8Array> {
  const { width, height, data } = await decodeImage(image);
  return sharp(data, { raw: { width, height, channels: 3 } })
    .resize(thumbnailSide, thumbnailSide, { fit: "inside", withoutEnlargement: true })
    .jpeg({ quality: 80 })
    .toBuffer();
}
