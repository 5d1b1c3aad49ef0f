// --answers FILE: the answers that `ask` chooses from, one a line, here and in a job.

import { readFileSync } from "node:fs";
import { type Command, Option } from "commander";
import { UsageError } from "./errors.ts";
import { wholeNumber } from "./generation-options.ts";

export interface AnswersFlags {
  readonly answers?: string;
  readonly keepAnswers?: number;
  readonly allScores?: boolean;
}

/** Most lines of a file; no list that models were evaluated with has a third of it. */
const mostLines = 16_384;

/** Add --answers and --keep-answers. @param when what must be there beside them, for their help */
export function addAnswersOptions(command: Command, when = ""): Command {
  return command
    .option("--answers <file>", `${when}answer with the likeliest line of this file instead of generating`)
    .addOption(
      new Option(
        "--keep-answers <count>",
        "with --answers: compare whole only the lines with the likeliest first ids (default: 128 for BLIP, else all)",
      ).argParser(wholeNumber("--keep-answers", 1, mostLines)),
    );
}

/** Add --all-scores. */
export function addAllScoresOption(command: Command): Command {
  return command.option("--all-scores", "with --answers: every line that was compared whole, the likeliest first");
}

/**
 * The answers to choose from; null without --answers.
 * @param generationFlags those that were given: they have no part in it
 * @throws UsageError
 */
export function answersOf(
  { answers: file, keepAnswers, allScores }: AnswersFlags,
  generationFlags: readonly string[],
): readonly string[] | null {
  if (file === undefined) {
    if (allScores) throw new UsageError("--all-scores: expected --answers beside it, got none");
    if (keepAnswers !== undefined) throw new UsageError("--keep-answers: expected --answers beside it, got none");
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
  if (lines.length > mostLines) {
    throw new UsageError(`--answers: expected at most ${mostLines} answers in ${file}, got ${lines.length}`);
  }
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
