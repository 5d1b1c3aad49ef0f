// The whole data flow. Everything that makes a text about an image does these steps; jobs keep what lies between them.

import { sha256 } from "./jobs/store.ts";
import type { Activation, AttentionMaps, Generation, RankOptions, RowOptions, Stages, TextOptions } from "./stages.ts";
import { together } from "./together.ts";

/** What is said about an image. */
export interface Answer {
  readonly text: string;
  /** New ids only, the final eos included when produced. */
  readonly tokenIds: readonly number[];
}

/**
 * An image file and a text for the language model -> an answer.
 * @param text as the model is to read it; null for none.
 * @throws ImageError, TokenizerError, GenerationError
 */
export async function answer(
  stages: Stages,
  image: Uint8Array,
  text: string | null,
  generation: Generation,
  options: TextOptions = {},
): Promise<Answer> {
  const prompt = await promptOf(stages, image, options);
  return answerFrom(stages, prompt, text, generation, { ...options, image: sha256(image) });
}

/** The first half: what depends on the image alone, and serves every text about it. @param frame of an animated image */
export async function promptOf(
  stages: Stages,
  image: Uint8Array,
  options: RowOptions = {},
  frame = 0,
): Promise<Activation> {
  const pixels = await stages.toPixels(image, frame); //                           (3, height, width)
  const { handsOver, instruction } = stages.card;
  if (handsOver === "features" || instruction) return stages.encode(pixels, options);
  return stages.encodeAndQuery(pixels, options); //                                features, then prompt (queries, llmWidth)
}

/** A frame of a video: an image file, and which frame of it. */
export interface Frame {
  readonly image: Uint8Array;
  readonly frame: number;
}

/** The first half for the frames of a video: what depends on them alone, each by itself. @throws ImageError */
export function promptsOfFrames(
  stages: Stages,
  frames: readonly Frame[],
  options: RowOptions = {},
): Promise<Activation[]> {
  return together(frames.map(({ image, frame }) => promptOf(stages, image, options, frame)));
}

/**
 * The prompts of all frames one after another, in time order, for answerFrom and rankAnswers: what LAVIS' InstructBLIP makes
 * of a video, and transformers' InstructBlipVideo. Only of models with a Q-Former.
 * @param made of promptsOfFrames, at least one
 * @param text as the Q-Former reads it, where it reads one
 */
export async function promptOfVideo(
  stages: Stages,
  made: readonly Activation[],
  text: string | null,
  options: RowOptions = {},
): Promise<Activation> {
  const prompts = await together(made.map((each) => promptFor(stages, each, text, options)));
  const [first] = prompts;
  if (first === undefined) throw new RangeError("video: expected at least one frame, got none");
  const [, width] = first.shape;
  const rows = prompts.reduce((sum, { shape }) => sum + shape[0], 0);
  return { ...first, shape: [rows, width], bytes: Buffer.concat(prompts.map(({ bytes }) => bytes)) };
}

/** Features and an instruction -> the prompt, where the Q-Former reads instructions. */
export async function instructedPrompt(
  stages: Stages,
  features: Activation,
  instruction: string,
  options: RowOptions = {},
): Promise<Activation> {
  const instructionIds = await stages.tokenizeInstruction(instruction); //         specials included
  return stages.query(features, { ...options, instructionIds }); //                (queries, llmWidth)
}

/**
 * The second half. A model that reads instructions takes no text for the empty one, as LAVIS does (transformers fails).
 * @param made what promptOf gave, or instructedPrompt with the same text
 */
export async function answerFrom(
  stages: Stages,
  made: Activation,
  text: string | null,
  generation: Generation,
  options: TextOptions = {},
): Promise<Answer> {
  const read = stages.card.instruction ? (text ?? "") : text;
  const prompt = await promptFor(stages, made, read, options); //                  (queries, llmWidth)
  const textIds = await stages.tokenize(read); //                                  specials included
  const tokenIds = await stages.generate(prompt, textIds, generation, options); // new ids
  return { text: await stages.detokenize(tokenIds), tokenIds };
}

/**
 * Where the model looked in an image for a text about it: a map for each query of its Q-Former (the same for every text,
 * unless it reads them), or for each of the new ids, at the id before it, which chose it. Only where ModelCard.lookers is.
 * @param features of encode
 * @param text as the model was given it @param tokenIds what it answered, at least one
 * @throws TokenizerError, TextError
 */
export async function attentionMaps(
  stages: Stages,
  features: Activation,
  text: string | null,
  tokenIds: readonly number[],
  options: RowOptions = {},
): Promise<AttentionMaps> {
  const { lookers, instruction } = stages.card;
  if (lookers !== "ids") {
    const read = instruction === undefined ? [] : await stages.tokenizeInstruction(text ?? "");
    return stages.attention(features, read, options);
  }
  const textIds = await stages.tokenize(text);
  const maps = await stages.attention(features, [...textIds, ...tokenIds.slice(0, -1)], options);
  const [, tokens] = maps.shape;
  const first = textIds.length - 1;
  const weights = maps.weights.slice(first * tokens, (first + tokenIds.length) * tokens);
  return { shape: [tokenIds.length, tokens], weights };
}

/** What generate takes: what the first half made, or what the Q-Former makes of it for this text. */
async function promptFor(
  stages: Stages,
  made: Activation,
  text: string | null,
  { priority, signal }: RowOptions,
): Promise<Activation> {
  if (stages.card.instruction === undefined || made.kind === "prompt") return made;
  return instructedPrompt(stages, made, text ?? "", { ...(priority && { priority }), ...(signal && { signal }) });
}

/** One of some given answers, and how likely it is. */
export interface RankedAnswer extends Answer {
  /** Sum of the log-probabilities of tokenIds and of the id that ends a text, with the digits that f32 has. */
  readonly score: number;
}

/**
 * Given answers to a text, the likeliest first; of equal ones the earlier. BLIP compares whole only those whose first ids
 * are the likeliest (ModelCard.answersKept, or options.keep), and only those are there.
 * @param made as in answerFrom
 * @param answers each goes on behind the text after one space, as a generated word would; of a model whose encoder reads the
 *   text, and of one whose answers begin behind an id of their own (ModelCard.answersAlone), each stands alone
 * @throws TokenizerError, GenerationError, RankError
 */
export async function rankAnswers(
  stages: Stages,
  made: Activation,
  text: string,
  answers: readonly string[],
  options: RankOptions = {},
): Promise<RankedAnswer[]> {
  const { answersKept } = stages.card;
  const prompt = await promptFor(stages, made, text, options); //                  (queries, llmWidth)
  const textIds = await stages.tokenize(text); //                                  specials included
  const idsOf = await idsOfAnswers(stages, text, textIds);
  const ids = await together(answers.map(idsOf));
  const keep = options.keep ?? answersKept;
  const scores = await stages.rank(prompt, textIds, ids, { ...options, ...(keep !== undefined && { keep }) });
  const ranked = answers.map((answer, i) => ({ text: answer, tokenIds: ids[i] ?? [], score: scores[i] ?? null }));
  const sorted = ranked.filter((each) => isCompared(each)).sort((a, b) => b.score - a.score);
  return sorted.map((each) => ({ ...each, score: Number(each.score.toPrecision(7)) }));
}

function isCompared(answer: Answer & { readonly score: number | null }): answer is RankedAnswer {
  return answer.score !== null;
}

/** How an answer to this text becomes ids. */
async function idsOfAnswers(
  stages: Stages,
  text: string,
  textIds: readonly number[],
): Promise<(answer: string) => Promise<number[]>> {
  const { answersAlone, encodesText } = stages.card;
  if (answersAlone) return (answer) => stages.tokenizeAnswer(answer);
  return encodesText ? idsAlone(stages) : (answer) => idsBehind(stages, text, textIds, answer);
}

/** What the ids of text and answer have more than those of the text. */
async function idsBehind(stages: Stages, text: string, textIds: readonly number[], answer: string): Promise<number[]> {
  const both = await stages.tokenize(`${text} ${answer}`);
  if (both.length > textIds.length && textIds.every((id, i) => both[i] === id)) return both.slice(textIds.length);
  throw new RankError(
    `rank: expected ${JSON.stringify(answer)} to add ids behind those of ${JSON.stringify(text)}, got others; end the text with a whole word`,
  );
}

/** The ids of an answer without those that every text begins and ends with. */
async function idsAlone(stages: Stages): Promise<(answer: string) => Promise<number[]>> {
  const specials = await stages.tokenize("");
  return async (answer) => {
    const ids = await stages.tokenize(answer);
    const before = specials.findIndex((id, i) => ids[i] !== id);
    const behind = before === -1 ? 0 : specials.length - before;
    return ids.slice(specials.length - behind, ids.length - behind);
  };
}

/** An answer that cannot be told from the text in front of it. */
export class RankError extends Error {
  override name = "RankError";
}

/** Ids to texts, told in the order in which the ids came. */
export class TextsInOrder {
  /** Resolves when all are told. */
  all: Promise<void> = Promise.resolve();
  readonly #stages: Stages;
  readonly #onText: (text: string) => void;

  constructor(stages: Stages, onText: (text: string) => void = () => {}) {
    this.#stages = stages;
    this.#onText = onText;
  }

  add(ids: readonly number[]): void {
    this.all = this.all.then(async () => this.#onText(await this.#stages.detokenize(ids)));
    this.all.catch(() => {}); // whoever awaits them all gets it
  }
}
