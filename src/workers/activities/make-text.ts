// A prompt in the store and a question to a text: the part of generate that batch and answer share.

import { answerFrom, RankError, rankAnswers } from "../../answer.ts";
import { readAnswers } from "../../jobs/answer-lists.ts";
import type { Asked } from "../../messages/job.ts";
import { defaultGeneration, type RowOptions } from "../../stages.ts";
import { keyOf } from "./make-prompts.ts";
import { QuestionError } from "./mistakes.ts";
import { modelText } from "./model-text.ts";
import { activationForm } from "./prompt-names.ts";
import type { Serving } from "./serving.ts";

export interface Generated {
  readonly text: string;
  readonly token_ids: readonly number[];
  /** Where the text was chosen from a list of answers. */
  readonly score?: number;
}

/** An item's prompt in the store, and its image. */
export interface Prompted {
  readonly prompt: string;
  readonly image?: string;
}

/**
 * @param prompted key in the store, and the digest of the image, which sampling needs
 * @param own the item's own question or prompt; it goes before the job's
 * @returns the text, or why the prompt is not to be had
 * @throws QuestionError, TokenizerError, RankError, UnsupportedModelError, PromptStoreUnavailableError
 */
export async function generateText(
  serving: Serving,
  asked: Asked,
  own: string | null,
  { prompt, image }: Prompted,
  row: RowOptions,
): Promise<Generated | { readonly missing: "absent" | "damaged" }> {
  const { stages, prompts } = serving;
  const activation = await prompts.get(keyOf(serving, prompt), activationForm("prompt", stages.card));
  if ("miss" in activation) {
    serving.metrics.miss("generate", activation.miss);
    return { missing: activation.miss === "absent" ? "absent" : "damaged" };
  }
  const read = modelText(stages.card, asked.task, questionOf(asked, own), asked.turns);
  if (asked.answers !== undefined) {
    const { keep } = asked.answers;
    const answers = await readAnswers(asked.answers);
    const options = { ...row, ...(keep !== undefined && { keep }) };
    const [best] = await rankAnswers(stages, activation, read ?? "", answers, options);
    if (best === undefined) throw new RankError("rank: expected answers to choose from, got an empty list");
    return { text: best.text, token_ids: best.tokenIds, score: best.score };
  }
  const generation = { ...defaultGeneration, ...asked.generation };
  const options = { ...row, ...(image !== undefined && { image }) };
  const { text, tokenIds } = await answerFrom(stages, activation, read, generation, options);
  return { text, token_ids: tokenIds };
}

/**
 * What the Q-Former reads for an item, which is what the language model reads; undefined where it reads no text.
 * @param own as in generateText
 * @throws QuestionError, UnsupportedModelError
 */
export function instructionOf({ stages }: Serving, asked: Asked, own: string | null): string | undefined {
  const { card } = stages;
  return card.instruction && (modelText(card, asked.task, questionOf(asked, own), asked.turns) ?? "");
}

/**
 * The question or prompt of an item; null: none.
 * @throws QuestionError when there must be one
 */
export function questionOf(asked: Asked, own: string | null): string | null {
  const text = own ?? asked.prompt;
  if (asked.task === "ask" && text === null) {
    throw new QuestionError(
      "ask: expected a question for every item, got none; give the item a prompt or the job a question",
    );
  }
  return text;
}
