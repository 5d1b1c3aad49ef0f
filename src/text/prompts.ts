// What a model reads for what a user asks: the frame of its kind, the turns of a conversation before it, and what LAVIS makes of
// texts before a tokenizer sees them.

import type { ModelCard } from "../stages.ts";

/** A question, and what was answered. */
export interface Turn {
  readonly question: string;
  readonly answer: string;
}

/** Which of its two forms VisualGLM is asked in. */
export type PromptLanguage = "zh" | "en";

/** BLIP-2 was trained to answer after this frame; the question goes in as it is. */
export function questionPrompt(question: string): string {
  return `Question: ${question} Answer:`;
}

/** Turns as LAVIS' demo of BLIP-2 has them, with a space behind; "" without turns. */
function answered(turns: readonly Turn[]): string {
  return turns.map(({ question, answer }) => `Question: ${question} Answer: ${answer}. `).join("");
}

const marks = { zh: ["问：", "答："], en: ["Q:", "A:"] } as const;

/** VisualGLM's frame of a question, which follows the image. Upstream: THUDM/VisualGLM-6B, model/chat.py. */
export function glmPrompt(
  question: string,
  turns: readonly Turn[] = [],
  language: PromptLanguage = languageOf(question),
): string {
  const [asks, answers] = marks[language];
  const before = turns.map((turn) => `${asks}${turn.question}\n${answers}${turn.answer}\n`).join("");
  return `${before}${asks}${question}\n${answers}`;
}

/** Chinese where a text has a Chinese character, else English. */
export function languageOf(text: string): PromptLanguage {
  return /\p{Script=Han}/u.test(text) ? "zh" : "en";
}

/** What VisualGLM is asked where it is asked nothing: it was not trained without a question. */
export const glmCaption = "描述这张图片。";

/**
 * What a model reads for a question.
 * @param turns of the same conversation, the oldest first. BLIP reads one question and none of them; InstructBLIP takes the
 * question verbatim, and turns in front of it as BLIP-2 has them. As LAVIS has it, BLIP's questions are cleaned.
 * @param language of VisualGLM's frame; default: the question's
 */
export function questionText(
  { family, settings }: Pick<ModelCard, "family" | "settings">,
  question: string,
  turns: readonly Turn[] = [],
  language?: PromptLanguage,
): string {
  if (family === "blip-vqa") return settings?.behaviour === "lavis" ? lavisQuestion(question) : question;
  if (family === "visualglm") return glmPrompt(question, turns, language);
  if (family.startsWith("blip-2")) return answered(turns) + questionPrompt(question);
  return family.startsWith("instructblip") ? answered(turns) + question : question;
}

const chinese = "[\\u4e00-\\u9fff]";
/** Punctuation that is wide beside a Chinese character. */
const wide = { ",": "，", "!": "！", ":": "：", ";": "；", "?": "？" } as const;

/**
 * A reply of VisualGLM as its own demo shows it: trimmed, its mark for the date of training filled in, punctuation beside
 * Chinese characters wide, and only what follows the last mark of an answer.
 */
export function glmReply(text: string): string {
  let reply = text.trim().replaceAll("[[训练时间]]", "2023年");
  for (const [narrow, mark] of Object.entries(wide)) {
    const escaped = `\\${narrow}`;
    reply = reply
      .replace(new RegExp(`(${chinese})${escaped}`, "g"), `$1${mark}`)
      .replace(new RegExp(`${escaped}(${chinese})`, "g"), `${mark}$1`);
  }
  const start = Math.max(...Object.values(marks).map(([, answers]) => endOfLast(reply, answers)));
  return reply.slice(start).trim();
}

function endOfLast(text: string, mark: string): number {
  const at = text.lastIndexOf(mark);
  return at < 0 ? 0 : at + mark.length;
}

/** What LAVIS' captions begin with where a user gives nothing: lavis/configs/models/blip_caption_base_coco.yaml. */
export const lavisCaptionPrompt = "a picture of ";

/** Words that LAVIS keeps of a text: `max_words` of its processors. */
const lavisWords = 50;

/** Lower case, marks away, the first 50 words: BlipQuestionProcessor, lavis/processors/blip_processors.py at 506965b. */
export function lavisQuestion(question: string): string {
  const words = question
    .toLowerCase()
    .replaceAll(/[.!"()*#:;~]/g, "")
    .trimEnd()
    .split(" ");
  return words.slice(0, lavisWords).join(" ");
}

/** The same with marks as spaces, and runs of white space as one: BlipCaptionProcessor. */
export function lavisText(text: string): string {
  const plain = text
    .toLowerCase()
    .replaceAll(/[.!"()*#:;~]/g, " ")
    .replaceAll(/\s{2,}/g, " ");
  return plain
    .replace(/\n+$/, "")
    .replace(/^ +| +$/g, "")
    .split(" ")
    .slice(0, lavisWords)
    .join(" ");
}
