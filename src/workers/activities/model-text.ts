// What the language model reads for a question or a prompt.

import type { Task } from "../../messages/job.ts";
import { expectServes, type Purpose } from "../../models/families.ts";
import type { ModelCard } from "../../stages.ts";
import { lavisCaptionPrompt, lavisQuestion, questionText } from "../../text/prompts.ts";

/** What a model is wanted for by each task. */
export const purposeOfTask = {
  caption: "captions",
  ask: "answers",
  match: "matches",
  index: "vectors",
  capfilt: "captions",
} as const satisfies Record<Task, Purpose>;

/**
 * `ask` wraps a question as the model was trained to be asked; a caption's prompt is taken verbatim. As LAVIS has it, BLIP's
 * questions are cleaned, and its captions have a prompt of their own.
 * @throws UnsupportedModelError when the model is of no use for the task
 */
export function modelText(card: ModelCard, task: Task, text: string | null): string | null {
  expectServes(card, purposeOfTask[task]);
  const isLavis = card.settings?.behaviour === "lavis";
  if (task !== "ask") return text ?? (isLavis && card.family === "blip-caption" ? lavisCaptionPrompt : null);
  if (text === null) return null;
  return questionText(card.family, isLavis && card.family === "blip-vqa" ? lavisQuestion(text) : text);
}
