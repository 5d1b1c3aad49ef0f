// The whole data flow. Everything that makes a text about an image does these steps; jobs keep what lies between them.

import { sha256 } from "./jobs/store.ts";
import type { Activation, Generation, RowOptions, Stages, TextOptions } from "./stages.ts";

/** What is said about an image. */
export interface Answer {
  readonly text: string;
  /** New ids only, the final eos included when produced. */
  readonly tokenIds: readonly number[];
}

/**
 * An image file and a text for the language model -> an answer.
 * @param text as the model is to read it; null for none.
 * @throws ImageError, TokenizerError, GenerationError
 */
export async function answer(
  stages: Stages,
  image: Uint8Array,
  text: string | null,
  generation: Generation,
  options: TextOptions = {},
): Promise<Answer> {
  const prompt = await promptOf(stages, image, options);
  return answerFrom(stages, prompt, text, generation, { ...options, image: sha256(image) });
}

/** The first half: what depends on the image alone, and serves every text about it. */
export async function promptOf(stages: Stages, image: Uint8Array, options: RowOptions = {}): Promise<Activation> {
  const pixels = await stages.toPixels(image); //                                  (3, height, width)
  const { handsOver, instruction } = stages.card;
  if (handsOver === "features" || instruction) return stages.encode(pixels, options);
  return stages.encodeAndQuery(pixels, options); //                                features, then prompt (queries, llmWidth)
}

/** Features and an instruction -> the prompt, where the Q-Former reads instructions. */
export async function instructedPrompt(
  stages: Stages,
  features: Activation,
  instruction: string,
  options: RowOptions = {},
): Promise<Activation> {
  const instructionIds = await stages.tokenizeInstruction(instruction); //         specials included
  return stages.query(features, { ...options, instructionIds }); //                (queries, llmWidth)
}

/**
 * The second half. A model that reads instructions takes no text for the empty one, as LAVIS does (transformers fails).
 * @param made what promptOf gave, or instructedPrompt with the same text
 */
export async function answerFrom(
  stages: Stages,
  made: Activation,
  text: string | null,
  generation: Generation,
  options: TextOptions = {},
): Promise<Answer> {
  const read = stages.card.instruction ? (text ?? "") : text;
  const prompt = await promptFor(stages, made, read, options); //                  (queries, llmWidth)
  const textIds = await stages.tokenize(read); //                                  specials included
  const tokenIds = await stages.generate(prompt, textIds, generation, options); // new ids
  return { text: await stages.detokenize(tokenIds), tokenIds };
}

/** What generate takes: what the first half made, or what the Q-Former makes of it for this text. */
async function promptFor(
  stages: Stages,
  made: Activation,
  text: string | null,
  { priority, signal }: RowOptions,
): Promise<Activation> {
  if (stages.card.instruction === undefined || made.kind === "prompt" || text === null) return made;
  return instructedPrompt(stages, made, text, { ...(priority && { priority }), ...(signal && { signal }) });
}

/** One of some given answers, and how likely it is. */
export interface RankedAnswer extends Answer {
  /** Sum of the log-probabilities of tokenIds and of the id that ends a text. */
  readonly score: number;
}

/**
 * Given answers to a text, the likeliest first; of equal ones the earlier.
 * @param made as in answerFrom
 * @param answers each goes on behind the text after one space, as a generated word would
 * @throws TokenizerError, GenerationError
 */
export async function rankAnswers(
  stages: Stages,
  made: Activation,
  text: string,
  answers: readonly string[],
  options: RowOptions = {},
): Promise<RankedAnswer[]> {
  const prompt = await promptFor(stages, made, text, options); //                  (queries, llmWidth)
  const textIds = await stages.tokenize(text); //                                  specials included
  const ids = await Promise.all(answers.map((answer) => idsBehind(stages, text, textIds, answer)));
  const scores = await stages.rank(prompt, textIds, ids, options);
  const ranked = answers.map((answer, i) => ({ text: answer, tokenIds: ids[i] ?? [], score: scores[i] ?? Number.NaN }));
  return ranked.sort((a, b) => b.score - a.score);
}

/** What the ids of text and answer have more than those of the text. */
async function idsBehind(stages: Stages, text: string, textIds: readonly number[], answer: string): Promise<number[]> {
  const both = await stages.tokenize(`${text} ${answer}`);
  if (both.length > textIds.length && textIds.every((id, i) => both[i] === id)) return both.slice(textIds.length);
  throw new RankError(
    `rank: expected ${JSON.stringify(answer)} to add ids behind those of ${JSON.stringify(text)}, got others; end the text with a whole word`,
  );
}

/** An answer that cannot be told from the text in front of it. */
export class RankError extends Error {
  override name = "RankError";
}
