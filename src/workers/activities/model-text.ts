// What the language model reads for a question or a prompt.

import { questionPrompt } from "../../text/prompts.ts";

/** `ask` wraps a question as BLIP-2 was evaluated; the other families, and every caption, take the text verbatim. */
export function modelText(family: string, task: "caption" | "ask", text: string | null): string | null {
  if (text === null || task === "caption") return text;
  return family.startsWith("blip-2") ? questionPrompt(text) : text;
}
