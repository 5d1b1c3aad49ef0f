// CapFilt, as BLIP bootstraps captions: a captioner makes a text of its own for each image from the web, and a filter judges
// that text and those that came with the image. What is judged to belong to the image stays.
//
//     image ── answer ─────────── synthetic text ─┐
//     image ── encodeImage ───────────────────────┤ matchWith -> itm >= threshold: kept
//     web texts ──────────────────────────────────┘
//
// Paper: Li et al. 2022, BLIP, section 3.3. Its captioner draws (nucleus sampling), so that texts say different things.

import { answer } from "./answer.ts";
import { type EncodedImage, encodeImage, matchWith, score } from "./matching.ts";
import type { Decision } from "./messages/item-result.ts";
import type { Generation, RetrievalStages, RowOptions, Stages } from "./stages.ts";
import { together } from "./together.ts";

/** From this matching probability on a text stays, unless the caller says otherwise: where the filter says "match". */
export const defaultThreshold = 0.5;

/** The texts about one image. */
export interface JudgedTexts {
  readonly web: readonly string[];
  readonly synthetic: string;
}

export interface FilterSettings {
  /** What the synthetic text continues, as the model is to read it; null: nothing. */
  readonly prompt: string | null;
  readonly generation: Generation;
  readonly threshold: number;
}

/**
 * An image file and the texts that came with it -> a decision about each, and about one that the captioner made; web texts
 * first, in their order.
 * @throws ImageError, GenerationError, and TokenizerError of the prompt; a text that cannot be judged is a decision against it
 */
export async function filterTexts(
  captioner: Stages,
  matcher: RetrievalStages,
  image: Uint8Array,
  web: readonly string[],
  { prompt, generation, threshold }: FilterSettings,
  options: RowOptions = {},
): Promise<Decision[]> {
  const [{ text: synthetic }, encoded] = await Promise.all([
    answer(captioner, image, prompt, generation, options),
    encodeImage(matcher, image, options),
  ]);
  return judgeTexts(matcher, encoded, { web, synthetic }, threshold, options);
}

/** The second half: texts about an image that is encoded. */
export async function judgeTexts(
  matcher: RetrievalStages,
  image: EncodedImage,
  { web, synthetic }: JudgedTexts,
  threshold: number,
  options: RowOptions = {},
): Promise<Decision[]> {
  const texts = [
    ...web.map((text) => ({ text, source: "web" as const })),
    { text: synthetic, source: "synthetic" as const },
  ];
  const judged = await together(
    texts.map(async (each) => ({ ...each, ...(await judge(matcher, image, each.text, options)) })),
  );
  const kept = new Map<string, Decision["source"]>();
  return judged.map(({ text, source, ...verdict }): Decision => {
    if ("refused" in verdict) return { text, source, itm: null, itc: null, kept: false, reason: verdict.refused };
    const { itm, itc } = verdict;
    const isMatch = itm >= threshold;
    const before = kept.get(comparable(text));
    if (isMatch) kept.set(comparable(text), before ?? source);
    return { text, source, itm, itc, ...outcome(isMatch, { itm, threshold }, before) };
  });
}

function outcome(
  isMatch: boolean,
  { itm, threshold }: { readonly itm: number; readonly threshold: number },
  before: Decision["source"] | undefined,
): Pick<Decision, "kept" | "reason"> {
  if (!isMatch) return { kept: false, reason: `itm ${itm} is below ${threshold}` };
  if (before !== undefined) return { kept: false, reason: `the same as the ${before} text before it` };
  return { kept: true, reason: `itm ${itm} is at least ${threshold}` };
}

/** Scores as they are printed, so that a line's reason agrees with its figures; or why a text has none. */
async function judge(
  matcher: RetrievalStages,
  image: EncodedImage,
  text: string,
  options: RowOptions,
): Promise<{ readonly itm: number; readonly itc: number } | { readonly refused: string }> {
  if (text.trim() === "") return { refused: "the text is empty" };
  try {
    const { itm, itc } = await matchWith(matcher, image, text, options);
    return { itm: score(itm), itc: score(itc) };
  } catch (error) {
    if (isOfText(error)) return { refused: `${error.name}: ${error.message}` };
    throw error;
  }
}

/** By name: errors of threads are of other classes than ours. */
function isOfText(error: unknown): error is Error {
  return error instanceof Error && (error.name === "TextError" || error.name === "TokenizerError");
}

/** Equal for texts that differ in case and white space only. */
function comparable(text: string): string {
  return text.trim().replace(/\s+/g, " ").toLowerCase();
}
