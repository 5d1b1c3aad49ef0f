// Texts around what a user gives, and what LAVIS makes of them before a tokenizer sees them.

/** BLIP-2 was trained to answer after this frame; the question goes in as it is. */
export function questionPrompt(question: string): string {
  return `Question: ${question} Answer:`;
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
