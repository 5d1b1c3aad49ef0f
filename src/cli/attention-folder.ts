// --attention DIR: where the model looked in each image, as pictures and as numbers.
//
//     DIR/photo.jpg.attention.png         the picture under the mean of all maps
//     DIR/photo.jpg.attention.sheet.png   every map for itself, row by row, in the order of the numbers
//     DIR/photo.jpg.attention.json        the numbers
//
// Where the maps depend on an instruction, the second question about photo.jpg has photo.jpg.attention.2.png and so on.

import { accessSync, constants, existsSync, mkdirSync, readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import { type Family, families } from "../models/families.ts";
import type { AttentionMaps, ModelCard } from "../stages.ts";
import { UsageError } from "./errors.ts";

export interface AttentionFlag {
  readonly attention?: string;
}

/** For the help of the commands that have it. */
export const attentionHelp = `
--attention writes for each image NAME.attention.png (the mean over all maps on the dimmed picture, yellow the largest),
NAME.attention.sheet.png (every map) and NAME.attention.json: {"image", "lookers": "queries" or "ids", "grid": [rows,
columns], "class": [weight of the class token, ...], "weights": [[weight of each patch, row by row], ...], one entry per query
of the Q-Former or per new id, and "token_ids" of these}. A row's weights and its class sum to 1. InstructBLIP's queries read
the instruction, which its JSON has as "instruction": the files of a second question are NAME.attention.2.png and so on.
`;

/** Add --attention. */
export function addAttentionOption(command: Command): Command {
  return command.option(
    "--attention <dir>",
    "write where the model looked in each image, as PNG and JSON, into this folder",
  );
}

/** What is written about one image. */
export interface Looked {
  readonly image: string;
  readonly bytes: Uint8Array;
  readonly maps: AttentionMaps;
  /** The new ids, where they are what looked. */
  readonly tokenIds: readonly number[] | null;
  /** Where the Q-Former read one: the instruction, and which about this image it is, from 1. */
  readonly instruction: { readonly text: string; readonly number: number } | null;
}

export class AttentionFolder {
  readonly #folder: string;
  readonly #names: ReadonlyMap<string, string>;

  /**
   * @param folder made if need be
   * @param images all that are written about; no two of them share a name
   * @throws UsageError when it cannot be written
   */
  constructor(folder: string, images: readonly string[]) {
    try {
      makeFolder(resolve(folder));
      readdirSync(folder); // fails for a file
      accessSync(folder, constants.W_OK | constants.X_OK);
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      const got = code === "EEXIST" || code === "ENOTDIR" ? "a file" : code;
      throw new UsageError(`--attention: expected a folder that can be written, got ${got}: ${folder}`);
    }
    this.#folder = folder;
    this.#names = namesOf(images);
  }

  /** @throws UsageError for a model that has no maps to write */
  expectLookers({ ref, family, lookers }: ModelCard): void {
    if (lookers !== undefined) return;
    throw new UsageError(
      `--attention: expected a model whose Q-Former, or whose decoder, looks at the image (BLIP-2, InstructBLIP, VisualGLM, or BLIP that captions), ` +
        `got ${ref}, ${families[family as Family].architecture}; leave it out`,
    );
  }

  /** @returns the path of the numbers */
  async write(card: ModelCard, { image, bytes, maps, tokenIds, instruction }: Looked): Promise<string> {
    const { attentionOverlay, attentionSheet } = await import("../image/attention-overlay.ts");
    const { decodeImage } = await import("../image/decode.ts");
    const { number = 1 } = instruction ?? {};
    const own = `${this.#names.get(image)}.attention.${number > 1 ? `${number}.` : ""}`;
    const path = (ending: string) => join(this.#folder, `${own}${ending}`);
    const [lookers, tokens] = maps.shape;
    const height = Math.round(Math.sqrt(((tokens - 1) * card.image.height) / card.image.width));
    const width = (tokens - 1) / height;
    const rows = Array.from({ length: lookers }, (_, i) => maps.weights.subarray(i * tokens, (i + 1) * tokens));
    const grids = rows.map((row) => ({ rows: height, columns: width, weights: row.subarray(1) }));
    const mean = Array.from({ length: tokens - 1 }, (_, patch) =>
      grids.reduce((sum, { weights }) => sum + (weights[patch] ?? 0) / lookers, 0),
    );
    const picture = await decodeImage(bytes);
    await writeFile(path("png"), await attentionOverlay(picture, { rows: height, columns: width, weights: mean }));
    await writeFile(path("sheet.png"), await attentionSheet(picture, grids));
    const numbers = {
      image,
      ...(instruction && { instruction: instruction.text }),
      lookers: card.lookers,
      grid: [height, width],
      ...(tokenIds && { token_ids: tokenIds }),
      class: rows.map(([first = 0]) => first),
      weights: grids.map(({ weights }) => [...weights]),
    };
    await writeFile(path("json"), `${JSON.stringify(numbers)}\n`);
    return path("json");
  }
}

/** With those above it. Node's own way to do so never returns for a folder in /proc. */
function makeFolder(folder: string): void {
  if (existsSync(folder)) return;
  makeFolder(dirname(folder));
  mkdirSync(folder);
}

/** A name for each image: the end of its path, with a number where another image has that already. */
function namesOf(images: readonly string[]): Map<string, string> {
  const names = new Map<string, string>();
  // Some file systems take names that differ in case for one.
  const taken = new Set<string>();
  for (const image of new Set(images)) {
    const own = basename(image);
    let name = own;
    for (let n = 2; taken.has(name.toLowerCase()); n++) name = `${own}.${n}`;
    taken.add(name.toLowerCase());
    names.set(image, name);
  }
  return names;
}
