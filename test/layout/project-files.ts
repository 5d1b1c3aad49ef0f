// The files of the project as the layout tests see them: everything but what is built, installed or generated.

import { type Dirent, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../src/gpu/package-root.ts";

const left = new Set([".git", "node_modules", "blipfleet-data", "__pycache__"]);

function isOurs(entry: Dirent): boolean {
  return !left.has(entry.name) && !(entry.isDirectory() && /^dist(-|$)/.test(entry.name));
}

/** Paths relative to the package root, with forward slashes, sorted. */
export function projectFiles(folder = ""): string[] {
  return readdirSync(join(packageRoot, folder), { withFileTypes: true })
    .filter(isOurs)
    .flatMap((entry) => {
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      return entry.isDirectory() ? projectFiles(path) : [path];
    })
    .sort();
}

export function readProjectFile(path: string): string {
  return readFileSync(join(packageRoot, path), "utf8");
}

/** Files whose text is worth reading: not weights, images or recorded histories. */
export function textFiles(): string[] {
  const binary = /\.(png|jpe?g|webp|avif|gif|tiff?|bmp|npy|npz|safetensors|bin|node|ico|gz)$/i;
  return projectFiles().filter((path) => !binary.test(path));
}
