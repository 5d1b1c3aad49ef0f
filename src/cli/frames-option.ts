// --frames N: a video, as an animated GIF or WebP or as a folder of frames, in place of an image.

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Command, Option } from "commander";
import type { Frame } from "../answer.ts";
import { ImageError } from "../image/image-error.ts";
import { sha256 } from "../jobs/store.ts";
import { mostFrames } from "../models/by-frames.ts";
import { type Family, families } from "../models/families.ts";
import type { ModelCard } from "../stages.ts";
import { UsageError } from "./errors.ts";
import { wholeNumber } from "./generation-options.ts";
import { readImageFile } from "./image-files.ts";

export interface FramesFlag {
  readonly frames?: number;
}

/** Add --frames. */
export function addFramesOption(command: Command): Command {
  return command.addOption(
    new Option(
      "--frames <count>",
      "take an animated GIF or WebP, or a folder of frames in natural order, as a video of so many frames (all, where it has " +
        "fewer), taken at equal steps from the first on; with BLIP-2 and InstructBLIP that write texts, and without --attention",
    ).argParser(wholeNumber("--frames", 1, mostFrames)),
  );
}

/**
 * A model without a Q-Former has no prompts that could stand one after another, and VisualGLM was never given more than one.
 * @throws UsageError
 */
export function expectTakesFrames({ ref, family, handsOver }: ModelCard): void {
  if (handsOver === "prompt" && family !== "visualglm") return;
  throw new UsageError(
    `--frames: expected a BLIP-2 or InstructBLIP that writes texts, got ${ref}, ` +
      `${families[family as Family].architecture}; leave it out`,
  );
}

/** The frames of a video in time order. */
export interface Video {
  readonly frames: readonly Frame[];
  /** Hex SHA-256 of the file, or of the digests of a folder's frames, which sampling needs. */
  readonly digest: string;
}

/** @param path a file or folder @throws ImageError */
export async function readVideo(path: string, most: number): Promise<Video> {
  const found = await stat(path).catch(() => null); // what is wrong with it is told below
  if (found?.isDirectory()) return readFolder(path, most);
  const image = await readImageFile(path);
  const { frameCount } = await import("../image/decode.ts");
  const frames = framesTaken(await frameCount(image), most).map((frame) => ({ image, frame }));
  return { frames, digest: sha256(image) };
}

async function readFolder(path: string, most: number): Promise<Video> {
  const files = naturalOrder((await readdir(path)).filter((name) => imageEnding.test(name) && !name.startsWith(".")));
  if (files.length === 0) {
    throw new ImageError(`${path}: expected a folder with frames (.jpg, .png, .webp, .avif, .gif, .tiff), got none`);
  }
  const taken = framesTaken(files.length, most).map((at) => join(path, files[at] ?? ""));
  const frames = await Promise.all(taken.map(async (file) => ({ image: await readImageFile(file), frame: 0 })));
  return { frames, digest: sha256(Buffer.from(frames.map(({ image }) => sha256(image)).join())) };
}

const imageEnding = /\.(jpe?g|png|webp|avif|gif|tiff?)$/i;

/** Numbers in names count as numbers: frame-9.png before frame-10.png. */
export function naturalOrder(names: readonly string[]): string[] {
  const { compare } = new Intl.Collator("en", { numeric: true });
  return [...names].sort((a, b) => compare(a, b) || (a < b ? -1 : 1));
}

/** Which of `total` frames are taken: floor(i * total / count), as LAVIS samples a video uniformly. */
export function framesTaken(total: number, most: number): number[] {
  const count = Math.min(total, most);
  return Array.from({ length: count }, (_, i) => Math.floor((i * total) / count));
}
