// Distinct small pictures, the same on every machine.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";

/** Write `count` PNGs of coloured blocks into a folder. @returns their paths */
export async function writePictures(folder: string, count: number, side = 40): Promise<string[]> {
  await mkdir(folder, { recursive: true });
  const paths: string[] = [];
  for (let picture = 0; picture < count; picture += 1) {
    const pixels = Buffer.alloc(side * side * 3);
    let seed = 1 + picture * 7919;
    const random = () => {
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
      return seed >> 16;
    };
    const colours = Array.from({ length: 16 }, () => [random() & 255, random() & 255, random() & 255]);
    for (let y = 0; y < side; y += 1) {
      for (let x = 0; x < side; x += 1) {
        const block = Math.floor((y * 4) / side) * 4 + Math.floor((x * 4) / side);
        pixels.set(colours[block] ?? [], (y * side + x) * 3);
      }
    }
    const path = join(folder, `picture-${String(picture).padStart(4, "0")}.png`);
    await writeFile(
      path,
      await sharp(pixels, { raw: { width: side, height: side, channels: 3 } })
        .png()
        .toBuffer(),
    );
    paths.push(path);
  }
  return paths;
}

/** A JSONL manifest over these paths, `repeat` times each: ids 0000, 0001 …. @returns its path */
export async function writeManifest(folder: string, paths: readonly string[], repeat = 1): Promise<string> {
  const images = Array.from({ length: repeat }, () => paths).flat();
  const lines = images.map((image, i) => JSON.stringify({ id: String(i).padStart(4, "0"), image }));
  const path = join(folder, "manifest.jsonl");
  await writeFile(path, `${lines.join("\n")}\n`);
  return path;
}
