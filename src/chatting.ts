// A conversation about one image: the image is encoded once, every question is answered with what was said before it.

import { type Answer, answerFrom, promptOf, TextsInOrder } from "./answer.ts";
import { sha256 } from "./jobs/store.ts";
import type { Activation, Generation, ModelCard, RowOptions, Stages, TextOptions } from "./stages.ts";
import { glmReply, type PromptLanguage, questionText, type Turn } from "./text/prompts.ts";

/** One reply. `text` is what people read, and what later questions see: of VisualGLM tidied up as its demo does. */
export interface Reply extends Answer {
  /** Its number in the conversation, from 1. */
  readonly turn: number;
  /** The oldest turns, which this question was answered without because they no longer fit. */
  readonly leftOut: LeftOut | null;
}

/**
 * Why turns were left out, in positions of the language model: image slots, text and new ids together; or in ids that a
 * Q-Former reads, where it reads the text.
 */
export interface LeftOut {
  readonly turns: number;
  readonly needed: number;
  readonly available: number;
}

export interface Chat {
  /**
   * @param onText told of the reply so far
   * @throws TokenizerError, GenerationError; the conversation is as it was before
   */
  ask(question: string, options?: AskOptions): Promise<Reply>;
  /** Forget all turns; the image stays. */
  clear(): void;
}

export interface AskOptions extends RowOptions {
  readonly onText?: (text: string) => void;
}

export interface ChatOptions extends RowOptions {
  readonly generation: Generation;
  /** Of VisualGLM's frame. Default: that of each question. */
  readonly language?: PromptLanguage;
}

/**
 * Begin a conversation about an image file.
 * @throws ImageError
 */
export async function openChat(stages: Stages, image: Uint8Array, options: ChatOptions): Promise<Chat> {
  const { generation, language, ...row } = options;
  const prompt = await promptOf(stages, image, row);
  const digest = sha256(image);
  let turns: readonly Turn[] = [];
  /** Those left out included. */
  let count = 0;
  return {
    async ask(question, { onText, ...asked } = {}) {
      const { text, leftOut } = await fitting(stages, question, turns, options);
      const texts = onText && new TextsInOrder(stages, onText);
      const given = { ...row, ...asked, image: digest, ...(texts && { onIds: texts.add }) };
      const answer = await said(stages, prompt, text, generation, given);
      await texts?.all;
      turns = [...turns.slice(leftOut?.turns ?? 0), { question, answer: answer.text }];
      count += 1;
      return { ...answer, turn: count, leftOut };
    },
    clear() {
      turns = [];
      count = 0;
    },
  };
}

async function said(
  stages: Stages,
  prompt: Activation,
  text: string,
  generation: Generation,
  options: TextOptions,
): Promise<Answer> {
  const answer = await answerFrom(stages, prompt, text, generation, options);
  return stages.card.family === "visualglm" ? { ...answer, text: glmReply(answer.text) } : answer;
}

/** The question with as many of the latest turns as the model's positions hold. */
async function fitting(
  stages: Stages,
  question: string,
  turns: readonly Turn[],
  { generation, language }: ChatOptions,
): Promise<{ readonly text: string; readonly leftOut: LeftOut | null }> {
  const { card } = stages;
  const textOf = (first: number) => questionText(card, question, turns.slice(first), language);
  let tooMuch: Omit<LeftOut, "turns"> | null = null;
  for (let first = 0; first < turns.length; first++) {
    const text = textOf(first);
    const excess = await excessOf(stages, text, generation);
    if (excess === null) return { text, leftOut: tooMuch && { ...tooMuch, turns: first } };
    tooMuch ??= excess;
  }
  // Without turns it is asked all the same, and refused with both numbers if it does not fit.
  return { text: textOf(turns.length), leftOut: tooMuch && { ...tooMuch, turns: turns.length } };
}

/** What a text needs and what there is, where that is less: in the language model, or in a Q-Former that reads the text. */
async function excessOf(stages: Stages, text: string, generation: Generation): Promise<Omit<LeftOut, "turns"> | null> {
  const { card } = stages;
  const needed = positionsNeeded(card, (await stages.tokenize(text)).length, generation);
  if (needed > card.maxPositions) return { needed, available: card.maxPositions };
  if (card.instruction === undefined) return null;
  const instructionIds = (await stages.tokenizeInstruction(text)).length;
  const { maxIds } = card.instruction;
  return instructionIds > maxIds ? { needed: instructionIds, available: maxIds } : null;
}

/** A decoder-only model has image slots, text and new ids in one sequence; an encoder reads the text by itself. */
function positionsNeeded({ family, prompt, handsOver }: ModelCard, textIds: number, generation: Generation): number {
  if (handsOver === "features" || family.endsWith("t5")) return textIds;
  // One of VisualGLM's ids stands for the image.
  const ids = family === "visualglm" ? textIds - 1 : textIds;
  return prompt[0] + ids + generation.maxNewTokens;
}
