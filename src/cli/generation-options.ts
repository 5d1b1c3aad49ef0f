// The generation flags, with Hugging Face's names and dashes, and what they may be.

import { type Command, Option } from "commander";
import { defaultGeneration, type Generation, mostBeams } from "../stages.ts";
import { UsageError } from "./errors.ts";

/** Longest generation that is taken for a wish and not a slip; the model's positions decide in the end. */
const mostNewTokens = 100_000;

/** The heading of these flags in a command's help. */
const generationGroup = "Generation:";

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

/** A parser of numbers from `low` to `high`, for commander. @throws UsageError */
export function numberBetween(flag: string, low: number, high: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== "" && value >= low && value <= high) return value;
    throw new UsageError(`${flag}: expected a number from ${low} to ${high}, got ${JSON.stringify(text)}`);
  };
}

/** A parser of a flag that may be repeated, for commander. @throws UsageError */
function oneMore(text: string, before: readonly string[]): readonly string[] {
  if (text === "") throw new UsageError('--stop: expected a text, got ""');
  return [...before, text];
}

/** What commander hands over for the flags below. */
export interface GenerationFlags {
  readonly maxNewTokens: number;
  readonly minNewTokens: number;
  readonly numBeams: number;
  readonly lengthPenalty: number;
  readonly repetitionPenalty: number;
  readonly repetitionPenaltyScope: Generation["repetitionPenaltyScope"];
  readonly stop: readonly string[];
  readonly doSample?: boolean;
  /** Of sampling; absent where the flag was. */
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed?: number;
}

const { temperature, topK, topP, seed } = defaultGeneration;

/** Without defaults of commander's, so that a flag given without --do-sample shows. */
const samplingOptions = [
  {
    flags: "--temperature <number>",
    text: `sampling: below 1 prefers likely ids (default: ${temperature})`,
    parse: numberBetween("--temperature", 1e-6, 1e6),
  },
  {
    flags: "--top-k <count>",
    text: `sampling: only the likeliest so many ids; 0: all (default: ${topK})`,
    parse: wholeNumber("--top-k", 0, 2 ** 24),
  },
  {
    flags: "--top-p <number>",
    text: `sampling: of those only the fewest whose probabilities sum to this (default: ${topP})`,
    parse: numberBetween("--top-p", 0, 1),
  },
  {
    flags: "--seed <number>",
    text: `sampling: the same seed draws the same text for an image and a prompt (default: ${seed})`,
    parse: wholeNumber("--seed", 0, Number.MAX_SAFE_INTEGER),
  },
];

/** Add the generation flags to a command. */
export function addGenerationOptions(command: Command): Command {
  const { maxNewTokens, minNewTokens, numBeams, lengthPenalty, repetitionPenalty } = defaultGeneration;
  const add = (flags: string, text: string, parse: (value: string) => number, standard: number) =>
    command.addOption(new Option(flags, text).argParser(parse).default(standard).helpGroup(generationGroup));
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
  const group = (option: Option) => command.addOption(option.helpGroup(generationGroup));
  group(
    new Option(
      "--repetition-penalty-scope <scope>",
      "all: ids of prompt and image count as seen; new: generated ones only",
    )
      .choices(["all", "new"])
      .default(defaultGeneration.repetitionPenaltyScope),
  );
  group(
    new Option("--stop <text>", "end a text with the id that completes this one (may be repeated)")
      .argParser(oneMore)
      .default([], "none"),
  );
  group(new Option("--do-sample", "draw each id by its probability"));
  for (const { flags, text, parse } of samplingOptions) group(new Option(flags, text).argParser(parse));
  return command;
}

/** The generation flags that the command line gives, e.g. "--num-beams". */
export function givenGenerationFlags(command: Command): string[] {
  return command.options
    .filter(({ helpGroupHeading }) => helpGroupHeading === generationGroup)
    .filter((option) => command.getOptionValueSource(option.attributeName()) === "cli")
    .map(({ long, flags }) => long ?? flags);
}

/** Of nucleus sampling, where a command samples unasked; as BLIP's own code draws captions. */
const nucleus = 0.9;

/**
 * For captions that are to say different things: drawn with --top-p 0.9 unless flags say otherwise; --num-beams above 1 stands
 * for beam search.
 * @throws as generationFrom
 */
export function samplingGenerationFrom(flags: GenerationFlags): Generation {
  if (flags.numBeams > 1 && !flags.doSample) return generationFrom(flags);
  return generationFrom({ ...flags, doSample: true, topP: flags.topP ?? nucleus });
}

/** @throws UsageError when flags contradict each other. */
export function generationFrom(flags: GenerationFlags): Generation {
  const { maxNewTokens, minNewTokens, numBeams, lengthPenalty, repetitionPenalty } = flags;
  if (minNewTokens > maxNewTokens) {
    throw new UsageError(
      `--min-new-tokens: expected at most --max-new-tokens (${maxNewTokens}), got ${minNewTokens}; raise --max-new-tokens`,
    );
  }
  const { repetitionPenaltyScope, stop: stopStrings } = flags;
  if (numBeams > 1 && stopStrings.length > 0) {
    throw new UsageError(`--stop: expected --num-beams 1 beside it, got ${numBeams}; leave one of them out`);
  }
  const plain = { maxNewTokens, minNewTokens, numBeams, lengthPenalty, repetitionPenalty };
  return { ...defaultGeneration, ...plain, repetitionPenaltyScope, stopStrings, ...samplingFrom(flags) };
}

/** @throws UsageError */
function samplingFrom({ doSample = false, temperature, topK, topP, seed, numBeams }: GenerationFlags) {
  const given = Object.entries({ temperature, topK, topP, seed }).filter(([, value]) => value !== undefined);
  const [first] = given;
  if (!doSample && first !== undefined) {
    const flag = `--${first[0].replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    throw new UsageError(`${flag}: expected --do-sample beside it, got none; add it, or leave ${flag} out`);
  }
  if (doSample && numBeams > 1) {
    throw new UsageError(`--do-sample: expected --num-beams 1 beside it, got ${numBeams}; there is no beam sampling`);
  }
  return {
    doSample,
    ...(Object.fromEntries(given) as Partial<Record<"temperature" | "topK" | "topP" | "seed", number>>),
  };
}
