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
  return stages.encodeAndQuery(pixels, options); //                                features, then prompt (queries, llmWidth)
}

/** The second half. */
export async function answerFrom(
  stages: Stages,
  prompt: Activation,
  text: string | null,
  generation: Generation,
  options: TextOptions = {},
): Promise<Answer> {
  const textIds = await stages.tokenize(text); //                                  specials included
  const tokenIds = await stages.generate(prompt, textIds, generation, options); // new ids
  return { text: await stages.detokenize(tokenIds), tokenIds };
}
