// --stream: a line of results written as its text comes, word by word.

import type { Command } from "commander";
import type { Generation } from "../stages.ts";
import { UsageError } from "./errors.ts";
import type { OutputFormat } from "./model-options.ts";
import { oneLine, writePart } from "./output.ts";
import type { Progress } from "./progress.ts";

export interface StreamFlag {
  readonly stream?: boolean;
}

export function addStreamOption(command: Command): Command {
  return command.option("--stream", "write a text as it comes, one after another; with --format text");
}

/** @throws UsageError where there is nothing to be written before a text is whole */
export function streamedLine(
  { stream = false }: StreamFlag,
  format: OutputFormat,
  { numBeams }: Pick<Generation, "numBeams">,
): StreamedLine | null {
  if (!stream) return null;
  if (format !== "text") throw new UsageError(`--stream: expected --format text beside it, got ${format}`);
  if (numBeams > 1) {
    throw new UsageError(
      `--stream: expected --num-beams 1 beside it, got ${numBeams}; beams have no text until they end`,
    );
  }
  return new StreamedLine();
}

/** One line at a time. In the end it holds what it would hold had it been written at once. */
export class StreamedLine {
  /** What of the text is written; null before the line has begun. */
  #written: string | null = null;
  readonly #write: (text: string) => void;

  constructor(write: (text: string) => void = writePart) {
    this.#write = write;
  }

  /**
   * Write what is new in the text so far, up to its last space: the last word may still grow or be joined to the one
   * before it.
   */
  show(head: string, text: string, progress: Progress): void {
    this.#begin(head, progress);
    const line = oneLine(text);
    this.#add(line.slice(0, Math.max(0, line.lastIndexOf(" "))));
  }

  /** Write the rest of the whole text, and end the line. */
  finish(head: string, text: string, progress: Progress): void {
    this.#begin(head, progress);
    const line = oneLine(text);
    // A text that was not to grow has changed: what is written stays, and the line is written anew.
    if (!line.startsWith(this.#written ?? "")) this.#write(`\n${head}${line}`);
    else this.#add(line);
    this.#write("\n");
    this.#written = null;
  }

  /** End a line that gets no more text. */
  abandon(): void {
    if (this.#written !== null) this.#write("\n");
    this.#written = null;
  }

  #begin(head: string, progress: Progress): void {
    if (this.#written !== null) return;
    progress.clear();
    this.#write(head);
    this.#written = "";
  }

  #add(line: string): void {
    const written = this.#written ?? "";
    if (line.length <= written.length || !line.startsWith(written)) return;
    this.#write(line.slice(written.length));
    this.#written = line;
  }
}
