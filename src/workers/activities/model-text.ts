// What the language model reads for a question or a prompt.

import { expectServes, type Purpose } from "../../models/families.ts";
import type { ModelCard } from "../../stages.ts";
import { captionText, questionText } from "../../text/prompts.ts";

/** What a model is wanted for by each task. */
export const purposeOfTask = { caption: "captions", ask: "answers" } as const satisfies Record<string, Purpose>;

/**
 * `ask` wraps a question as the model was trained to be asked; a caption's prompt is taken verbatim.
 * @throws UnsupportedModelError when the model is of no use for the task
 */
export function modelText(card: ModelCard, task: "caption" | "ask", text: string | null): string | null {
  expectServes(card, purposeOfTask[task]);
  if (text === null) return captionText(card.family);
  return task === "ask" ? questionText(card.family, text) : text;
}
