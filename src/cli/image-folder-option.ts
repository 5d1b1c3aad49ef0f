// --images, of commands that read lists.

import type { Command } from "commander";

export interface ImageFolderFlag {
  readonly images?: string;
}

export function addImageFolderOption(command: Command): void {
  command.option("--images <folder>", "where relative paths of a list start (default: the list's own folder)");
}
