// The whole data flow. Everything that makes a text about an image does these steps; jobs keep what lies between them.

import type { Activation, Generation, RowOptions, Stages } from "./stages.ts";

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
  options: RowOptions = {},
): Promise<Answer> {
  return answerFrom(stages, await promptOf(stages, image, options), text, generation, options);
}

/** The first half: what depends on the image alone, and serves every text about it. */
export async function promptOf(stages: Stages, image: Uint8Array, options: RowOptions = {}): Promise<Activation> {
  const pixels = await stages.toPixels(image); //                                  (3, height, width)
  if (stages.card.handsOver === "features") return stages.encode(pixels, options);
  return stages.encodeAndQuery(pixels, options); //                                features, then prompt (queries, llmWidth)
}

/** The second half. */
export async function answerFrom(
  stages: Stages,
  prompt: Activation,
  text: string | null,
  generation: Generation,
  options: RowOptions = {},
): Promise<Answer> {
  const textIds = await stages.tokenize(text); //                                  specials included
  const tokenIds = await stages.generate(prompt, textIds, generation, options); // new ids
  return { text: await stages.detokenize(tokenIds), tokenIds };
}
