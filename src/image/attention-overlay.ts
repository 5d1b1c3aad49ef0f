// Where a model looked, over the picture it looked at. The picture keeps its aspect ratio: patches are squares only in the
// square that it was squeezed into.
//
// Weights are interpolated bilinearly between the centres of the patches, and stay what they are outside them; each map is
// scaled by its own largest weight. Colours are viridis' (dark violet: no weight, yellow: the largest), laid over the picture
// at half its brightness, and the thicker the larger the weight.

import sharp from "sharp";
import type { RgbImage } from "./resize-bicubic.ts";

/** A weight for every patch, row by row. */
export interface PatchGrid {
  readonly rows: number;
  readonly columns: number;
  readonly weights: ArrayLike<number>;
}

/** Pixels of an overlay's longer side: a smaller picture is enlarged, a larger one reduced. */
const sides = { least: 512, most: 1024 } as const;
/** Pixels of the longer side of one picture on a sheet, and between them. */
const sheetSide = 160;
const sheetGap = 6;

/** How much of the picture's brightness is left, and how thick the colour is without weight and with the largest. */
const dimmed = 0.5;
const thickness = { least: 0.25, most: 0.75 } as const;

/** Viridis at equal steps from 0 to 1. */
const colours = [
  [68, 1, 84],
  [72, 40, 120],
  [62, 74, 137],
  [49, 104, 142],
  [38, 130, 142],
  [31, 158, 137],
  [53, 183, 121],
  [109, 205, 89],
  [180, 222, 44],
  [253, 231, 37],
] as const;

/** One map over its picture, as PNG. */
export async function attentionOverlay(picture: RgbImage, grid: PatchGrid): Promise<Uint8Array> {
  const longer = Math.max(picture.width, picture.height);
  return png(covered(await scaled(picture, Math.min(sides.most, Math.max(sides.least, longer))), grid));
}

/** Many maps of one picture side by side, row by row, as PNG. */
export async function attentionSheet(picture: RgbImage, grids: readonly PatchGrid[]): Promise<Uint8Array> {
  const small = await scaled(picture, sheetSide);
  const columns = Math.ceil(Math.sqrt(grids.length));
  const [stepX, stepY] = [small.width + sheetGap, small.height + sheetGap];
  const width = columns * stepX + sheetGap;
  const height = Math.ceil(grids.length / columns) * stepY + sheetGap;
  const data = new Uint8Array(width * height * 3).fill(255);
  for (const [i, grid] of grids.entries()) {
    const cell = covered(small, grid);
    const [left, top] = [sheetGap + (i % columns) * stepX, sheetGap + Math.floor(i / columns) * stepY];
    for (let y = 0; y < cell.height; y++) {
      const row = cell.data.subarray(y * cell.width * 3, (y + 1) * cell.width * 3);
      data.set(row, ((top + y) * width + left) * 3);
    }
  }
  return png({ width, height, data });
}

/** The picture with its longer side of this many pixels. */
async function scaled({ width, height, data }: RgbImage, longer: number): Promise<RgbImage> {
  const scale = longer / Math.max(width, height);
  const [w, h] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  const resized = await sharp(data, { raw: { width, height, channels: 3 } })
    .resize(w, h, { fit: "fill" })
    .raw()
    .toBuffer();
  return { width: w, height: h, data: resized };
}

function covered({ width, height, data }: RgbImage, { rows, columns, weights }: PatchGrid): RgbImage {
  const largest = Math.max(...Array.from(weights), Number.MIN_VALUE);
  const across = Array.from({ length: width }, (_, x) => between(x, width, columns));
  const result = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    const { low: top, high: bottom, share: down } = between(y, height, rows);
    for (const [x, { low, high, share }] of across.entries()) {
      const weight = (row: number, column: number) => weights[row * columns + column] ?? 0;
      const above = weight(top, low) * (1 - share) + weight(top, high) * share;
      const below = weight(bottom, low) * (1 - share) + weight(bottom, high) * share;
      paint(result, data, 3 * (y * width + x), (above * (1 - down) + below * down) / largest);
    }
  }
  return { width, height, data: result };
}

/** The two cells whose centres enclose the middle of a pixel, and how far it lies towards the second. */
function between(pixel: number, pixels: number, cells: number): { low: number; high: number; share: number } {
  const at = ((pixel + 0.5) * cells) / pixels - 0.5;
  const low = Math.floor(at);
  const inside = (cell: number) => Math.min(cells - 1, Math.max(0, cell));
  return { low: inside(low), high: inside(low + 1), share: at - low };
}

/** @param value from 0 to 1 */
function paint(result: Uint8Array, picture: Uint8Array, at: number, value: number): void {
  const place = value * (colours.length - 1);
  const low = Math.min(colours.length - 2, Math.floor(place));
  const thick = thickness.least + (thickness.most - thickness.least) * value;
  for (let channel = 0; channel < 3; channel++) {
    const [from, to] = [colours[low]?.[channel] ?? 0, colours[low + 1]?.[channel] ?? 0];
    const colour = from + (to - from) * (place - low);
    result[at + channel] = Math.round((picture[at + channel] ?? 0) * dimmed * (1 - thick) + colour * thick);
  }
}

function png({ width, height, data }: RgbImage): Promise<Uint8Array> {
  return sharp(data, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();
}
