// --answers FILE: the answers that `ask` chooses from, one a line.

import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { UsageError } from "./errors.ts";

export interface AnswersFlags {
  readonly answers?: string;
  readonly allScores?: boolean;
}

export function addAnswersOptions(command: Command): Command {
  return command
    .option("--answers <file>", "answer with the likeliest line of this file instead of generating")
    .option("--all-scores", "with --answers: every line, the likeliest first");
}

/**
 * The answers to choose from; null without --answers.
 * @param generationFlags those that were given: they have no part in it
 * @throws UsageError
 */
export function readAnswers(
  { answers: file, allScores }: AnswersFlags,
  generationFlags: readonly string[],
): readonly string[] | null {
  if (file === undefined) {
    if (allScores) throw new UsageError("--all-scores: expected --answers beside it, got none");
    return null;
  }
  const [flag] = generationFlags;
  if (flag !== undefined) {
    throw new UsageError(`${flag}: expected no flags of generation beside --answers, which generates nothing`);
  }
  const lines = textOf(file)
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  if (lines.length === 0) throw new UsageError(`--answers: expected an answer a line in ${file}, got none`);
  return lines;
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new UsageError(`--answers: expected a text file, got ${JSON.stringify(file)} (${code ?? message})`);
  }
}
