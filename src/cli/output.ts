// stdout carries results and nothing else; a reader that has seen enough (`| head`) ends the command quietly.

import { isAbsolute, relative, sep } from "node:path";
import type { Progress } from "./progress.ts";

export { score } from "../matching.ts";

let readerGone = false;

/** Call once, before anything is written. */
export function watchStdout(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    readerGone = true;
    process.exit(0);
  });
}

/** Write one line of results; a visible progress bar makes room for it. */
export function writeLine(line: string, progress?: Progress): void {
  if (readerGone) return;
  if (process.stdout.isTTY) progress?.clear();
  process.stdout.write(`${line}\n`);
}

/** Write a part of a line of results. */
export function writePart(text: string): void {
  if (!readerGone) process.stdout.write(text);
}

/** Write one JSON object as a line. */
export function writeJson(value: unknown, progress?: Progress): void {
  writeLine(JSON.stringify(value), progress);
}

/** Tell something that is not a result. What files and checkpoints are named cannot steer the terminal. */
export function tell(line: string): void {
  process.stderr.write(`${line.replace(controlCharacters, escaped)}\n`);
}

/** All but line feeds. */
const controlCharacters = /(?!\n)\p{Cc}/gu;

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** A text as part of a line for people: no line breaks, nothing that steers a terminal. --format jsonl keeps all. */
export function oneLine(text: string): string {
  return text.replace(/\p{Cc}+/gu, " ").trim();
}

/** A path as people read it: from the working folder when it lies below, else as it is. Hub ids stay, too. */
export function fromHere(path: string): string {
  if (!isAbsolute(path)) return path;
  const here = relative(process.cwd(), path);
  return here === "" || here === ".." || here.startsWith(`..${sep}`) || isAbsolute(here) ? path : here;
}
