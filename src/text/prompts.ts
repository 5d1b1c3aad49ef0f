/** BLIP-2 was trained to answer after this frame; the question goes in as it is. */
export function questionPrompt(question: string): string {
  return `Question: ${question} Answer:`;
}
