// The generation flags, with Hugging Face's names and dashes, and what they may be.

import { type Command, Option } from "commander";
import { defaultGeneration, type Generation, mostBeams } from "../stages.ts";
import { NotAvailableError, UsageError } from "./errors.ts";

/** Longest generation that is taken for a wish and not a slip; the model's positions decide in the end. */
const mostNewTokens = 100_000;

/** A parser of whole numbers from `low` to `high`, for commander. @throws UsageError */
export function wholeNumber(flag: string, low: number, high: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== "" && Number.isInteger(value) && value >= low && value <= high) return value;
    throw new UsageError(`${flag}: expected a whole number from ${low} to ${high}, got ${JSON.stringify(text)}`);
  };
}

/** A parser of finite numbers, for commander; `positive` leaves out zero and below. @throws UsageError */
export function finiteNumber(flag: string, positive: boolean): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== "" && Number.isFinite(value) && (!positive || value > 0)) return value;
    throw new UsageError(`${flag}: expected a ${positive ? "positive " : ""}number, got ${JSON.stringify(text)}`);
  };
}

/** Flags of sampling, which this version refuses: greedy and beam search are what it has. */
const samplingFlags = [
  "--do-sample",
  "--temperature <number>",
  "--top-k <count>",
  "--top-p <number>",
  "--seed <number>",
];

/** What commander hands over for the flags below. */
export interface GenerationFlags {
  readonly maxNewTokens: number;
  readonly minNewTokens: number;
  readonly numBeams: number;
  readonly lengthPenalty: number;
  readonly repetitionPenalty: number;
}

/** Add the generation flags to a command. */
export function addGenerationOptions(command: Command): Command {
  const { maxNewTokens, minNewTokens, numBeams, lengthPenalty, repetitionPenalty } = defaultGeneration;
  const add = (flags: string, text: string, parse: (value: string) => number, standard: number) =>
    command.addOption(new Option(flags, text).argParser(parse).default(standard).helpGroup("Generation:"));
  add(
    "--max-new-tokens <count>",
    "most new ids, the final end-of-text id included",
    wholeNumber("--max-new-tokens", 1, mostNewTokens),
    maxNewTokens,
  );
  add(
    "--min-new-tokens <count>",
    "no end of text before this many new ids",
    wholeNumber("--min-new-tokens", 0, mostNewTokens),
    minNewTokens,
  );
  add("--num-beams <count>", "beams of beam search; 1 is greedy", wholeNumber("--num-beams", 1, mostBeams), numBeams);
  add(
    "--length-penalty <number>",
    "beam search divides scores by length to this power; may be negative",
    finiteNumber("--length-penalty", false),
    lengthPenalty,
  );
  add(
    "--repetition-penalty <number>",
    "above 1 makes ids that were seen less likely",
    finiteNumber("--repetition-penalty", true),
    repetitionPenalty,
  );
  for (const flags of samplingFlags) {
    const [flag = flags] = flags.split(" ");
    const refuse = () => {
      throw new NotAvailableError(`${flag}: sampling is not available yet; use greedy or beam search (--num-beams)`);
    };
    command.addOption(new Option(flags).hideHelp());
    command.on(`option:${flag.slice(2)}`, refuse);
  }
  return command;
}

/** @throws UsageError when flags contradict each other. */
export function generationFrom(flags: GenerationFlags): Generation {
  const { maxNewTokens, minNewTokens, numBeams, lengthPenalty, repetitionPenalty } = flags;
  if (minNewTokens > maxNewTokens) {
    throw new UsageError(
      `--min-new-tokens: expected at most --max-new-tokens (${maxNewTokens}), got ${minNewTokens}; raise --max-new-tokens`,
    );
  }
  return { maxNewTokens, minNewTokens, numBeams, lengthPenalty, repetitionPenalty };
}
