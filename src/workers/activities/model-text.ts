// What the language model reads for a question or a prompt.

import type { Task } from "../../messages/job.ts";
import { expectServes, type Purpose } from "../../models/families.ts";
import type { ModelCard } from "../../stages.ts";
import { lavisCaptionPrompt, questionText, type Turn } from "../../text/prompts.ts";

/** What a model is wanted for by each task. */
export const purposeOfTask = {
  caption: "captions",
  ask: "answers",
  match: "matches",
  classify: "labels",
  index: "vectors",
  capfilt: "captions",
} as const satisfies Record<Task, Purpose>;

/**
 * `ask` wraps a question as the model was trained to be asked; every caption takes the text verbatim. As LAVIS has it, BLIP's
 * captions have a prompt of their own.
 * @param turns that a question follows, the oldest first
 * @throws UnsupportedModelError when the model is of no use for the task
 */
export function modelText(
  card: ModelCard,
  task: Task,
  text: string | null,
  turns: readonly Turn[] = [],
): string | null {
  expectServes(card, purposeOfTask[task]);
  if (task === "ask") return text === null ? null : questionText(card, text, turns);
  const isLavis = card.settings?.behaviour === "lavis";
  return text ?? (isLavis && card.family === "blip-caption" ? lavisCaptionPrompt : null);
}
