// Bytes of an image file -> upright 8-bit RGB, as Pillow's convert("RGB") gives it.
//
// sharp decodes. What Pillow does differently from sharp's defaults is done here: colour profiles are ignored, alpha is
// dropped and not composited, 16-bit gray is clipped and not scaled, CMYK becomes RGB by Pillow's plain formula.

import sharp, { type Sharp } from "sharp";
import { gifClearColours } from "./gif-clear-colours.ts";
import { ImageError, maxImageBytes } from "./image-error.ts";
import type { RgbImage } from "./resize-bicubic.ts";

/** Most pixels of one image; Pillow refuses above the same number. */
export const maxImagePixels = 178_956_970;

/** Most pixels of all frames of one animation: ten minutes of ten frames a second at 400 x 400. */
export const maxAnimationPixels = 2 ** 30;

/** Longest time one decode may take, seconds. */
const decodeSeconds = 60;

const supported = "JPEG, PNG, WebP, AVIF, GIF or TIFF";

type Format = "jpeg" | "png" | "webp" | "avif" | "gif" | "tiff";

// Callers run one decode per io thread, so libvips needs neither its own threads nor a cache of operations.
sharp.concurrency(1);
sharp.cache(false);

/**
 * Decodes one frame, turns it upright as its EXIF orientation says and converts it to RGB.
 * @param frame of an animated GIF or WebP, drawn over those before it as the file says; of anything else 0, the first
 * @throws ImageError for empty, truncated, damaged, too large or unsupported input; the cause is kept
 */
export async function decodeImage(bytes: Uint8Array, frame = 0): Promise<RgbImage> {
  return opened(bytes, frame, (file, format) => decode(file, format, frame));
}

/**
 * How many frames an animated GIF or WebP has; of anything else 1.
 * @throws ImageError as decodeImage, and for an animation that is too large
 */
export async function frameCount(bytes: Uint8Array): Promise<number> {
  return opened(bytes, 0, async (file, format) => {
    if (format !== "gif" && format !== "webp") return 1;
    const { width, pageHeight, height, pages = 1 } = await sharp(file, { limitInputPixels: false }).metadata();
    const pixels = width * (pageHeight ?? height) * pages;
    if (pixels <= maxAnimationPixels) return pages;
    throw new ImageError(
      `image: expected at most ${maxAnimationPixels} pixels in all frames, got ${pages} frames of ` +
        `${width} x ${pageHeight ?? height}; store it smaller, or as a folder of frames`,
    );
  });
}

async function opened<T>(
  bytes: Uint8Array,
  frame: number,
  work: (file: Buffer, format: Format) => Promise<T>,
): Promise<T> {
  if (bytes.length === 0) throw new ImageError("image: expected an image file, got zero bytes");
  if (bytes.length > maxImageBytes) {
    throw new ImageError(`image: expected at most ${maxImageBytes} bytes, got ${bytes.length}; store it smaller`);
  }
  const format = formatOf(bytes);
  if (format === null) throw new ImageError(`image: expected ${supported}, got a file that starts as none of them`);
  try {
    return await work(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), format);
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    const reason = firstWords(cause instanceof Error ? cause.message : String(cause));
    const got = frame === 0 ? "one that does not decode" : `one whose frame ${frame} does not decode`;
    throw new ImageError(`image: expected a whole ${format} file, got ${got} (${reason})`, { cause });
  }
}

/** What libvips says, which may be the same line many times. */
function firstWords(message: string): string {
  const lines = message.split("\n").map((line) => line.replaceAll(/\s+/g, " ").trim());
  return [...new Set(lines)].filter((line) => line !== "").join("; ");
}

/** By the file's first bytes, so that sharp's readers of documents (SVG, PDF) are never reached. */
function formatOf(bytes: Uint8Array): Format | null {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.byteLength, 64)).toString("latin1");
  if (text.startsWith("\xff\xd8\xff")) return "jpeg";
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return "png";
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "webp";
  if (text.startsWith("GIF87a") || text.startsWith("GIF89a")) return "gif";
  if (["II*\0", "MM\0*", "II+\0", "MM\0+"].includes(text.slice(0, 4))) return "tiff";
  if (text.slice(4, 8) === "ftyp" && /avi[fs]/.test(text.slice(8))) return "avif";
  return null;
}

async function decode(file: Buffer, format: Format, frame: number): Promise<RgbImage> {
  const header = await sharp(file, { limitInputPixels: false }).metadata();
  const { width, height, space, depth, channels, pages = 1 } = header;
  const frames = format === "gif" || format === "webp" ? pages : 1;
  if (!(frame < frames)) throw new ImageError(`image: expected a frame below ${frames}, got ${frame}`);
  if (width * height > maxImagePixels) {
    throw new ImageError(
      `image: expected at most ${maxImagePixels} pixels, got ${width} x ${height}; store it smaller`,
    );
  }
  // "error" stops at damage and at a missing end, and lets pass what Pillow also only warns of.
  const page = frame === 0 ? {} : { page: frame };
  const opened = sharp(file, { failOn: "error", ignoreIcc: true, limitInputPixels: maxImagePixels, ...page })
    .autoOrient()
    .timeout({ seconds: decodeSeconds });

  if (space === "cmyk" && depth === "uchar") {
    return rgbFromInk(await raw(opened.pipelineColourspace("cmyk").toColourspace("cmyk")));
  }
  if (space === "grey16" && channels === 1) return clippedGray(await raw(opened.toColourspace("grey16"), "ushort"));
  const known = ["srgb", "rgb", "b-w"].includes(space) && depth === "uchar";
  const deep = ["rgb16", "grey16"].includes(space) && depth === "ushort";
  if (!known && !deep) {
    throw new ImageError(`image: expected 8- or 16-bit gray, RGB or 8-bit CMYK, got ${space} with ${depth} samples`);
  }
  if (format === "gif" && channels === 4) {
    const drawn = await raw(opened.toColourspace("srgb").ensureAlpha());
    return withClearColours(drawn, gifClearColours(file, frame, drawn.width, drawn.height));
  }
  const { width: w, height: h, channels: c, data } = await raw(opened.removeAlpha().toColourspace("srgb"));
  if (c !== 3) throw new ImageError(`image: expected 3 channels after conversion to RGB, got ${c}`);
  return { width: w, height: h, data };
}

interface Raw {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly data: Uint8Array;
}

async function raw(image: Sharp, depth: "uchar" | "ushort" = "uchar"): Promise<Raw> {
  const { data, info } = await image.raw({ depth }).toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, channels: info.channels, data };
}

/** Pillow's CMYK: rgb = (255 - k) - ink * (255 - k) / 255, the quotient rounded. */
function rgbFromInk({ width, height, channels, data }: Raw): RgbImage {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += channels, to += 3) {
    const light = 255 - (data[from + 3] ?? 0);
    for (let ink = 0; ink < 3; ink++) {
      const product = (data[from + ink] ?? 0) * light + 128;
      rgb[to + ink] = light - (((product >> 8) + product) >> 8);
    }
  }
  return { width, height, data: rgb };
}

/** Pillow's 16-bit gray: levels above 255 are white. */
function clippedGray({ width, height, channels, data }: Raw): RgbImage {
  const levels = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const rgb = new Uint8Array(width * height * 3);
  for (let pixel = 0; pixel < width * height; pixel++) {
    rgb.fill(Math.min(levels.getUint16(pixel * channels * 2, true), 255), pixel * 3, pixel * 3 + 3);
  }
  return { width, height, data: rgb };
}

/** libvips paints what a GIF leaves out black; Pillow gives it a colour that the file marks as transparent. */
function withClearColours({ width, height, data }: Raw, colours: Uint8Array): RgbImage {
  const rgb = new Uint8Array(width * height * 3);
  for (let pixel = 0; pixel < width * height; pixel++) {
    if (data[pixel * 4 + 3] === 0) rgb.set(colours.subarray(pixel * 3, pixel * 3 + 3), pixel * 3);
    else rgb.set(data.subarray(pixel * 4, pixel * 4 + 3), pixel * 3);
  }
  return { width, height, data: rgb };
}
