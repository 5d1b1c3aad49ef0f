// Texts about images in this process: files are read and decoded ahead while the GPU works, every image is encoded
// once however many questions there are, and results come out in the order of the input.

import {
  type Answer,
  answerFrom,
  attentionMaps,
  promptOf,
  promptOfVideo,
  promptsOfFrames,
  type RankedAnswer,
  rankAnswers,
  TextsInOrder,
} from "../answer.ts";
import { sha256 } from "../jobs/store.ts";
import type { Activation, Generation, Stages } from "../stages.ts";
import { modelText, purposeOfTask } from "../workers/activities/model-text.ts";
import type { AttentionFolder } from "./attention-folder.ts";
import { describeError } from "./errors.ts";
import { expectTakesFrames, readVideo } from "./frames-option.ts";
import { insteadOfFolder, readImageFile } from "./image-files.ts";
import { inOrder } from "./in-order.ts";
import { chooseLocalModel, withModel } from "./local-model.ts";
import type { ModelFlags } from "./model-options.ts";
import { Progress } from "./progress.ts";

export interface LocalRun {
  readonly items: readonly LocalItem[];
  readonly model: ModelFlags;
  /** What progress counts, one unit per image and text. Default "images". */
  readonly noun?: string;
  /** Take every image as a video of at most so many frames. */
  readonly frames?: number;
  /** Where it is written where the model looked. */
  readonly attention?: AttentionFolder;
  /** Told of each text as it comes, one text after another. */
  readonly onText?: (image: string, asked: string | null, text: string, progress: Progress) => void;
}

/** An image, and what is asked of it. */
export interface LocalItem {
  readonly image: string;
  readonly asked: readonly Asked[];
}

export interface Asked {
  readonly task: "caption" | "ask";
  /** caption: the prompt, or null for none; ask: the question. */
  readonly text: string | null;
  readonly generation: Generation;
  /** ask: choose among these instead of generating. @see RankOptions.keep */
  readonly answers?: { readonly lines: readonly string[]; readonly keep?: number };
}

/** The same of every image. */
export function ofEvery(images: readonly string[], asked: readonly Asked[]): LocalItem[] {
  return images.map((image) => ({ image, asked }));
}

/** One line of output. */
export type LocalResult = {
  readonly image: string;
  readonly asked: string | null;
  /** The file with the numbers of where the model looked. */
  readonly attention?: string;
} /** `ranked`: of given answers those compared whole, the likeliest first; `text` is the first of them. */ & (
  | (Answer & { readonly ranked?: readonly RankedAnswer[] })
  | { readonly error: { readonly type: string; readonly message: string } }
);

/**
 * Images under way at once. Results leave in order, so those that wait for a slower one before them count as well: 64 keep
 * the batches of both programs full (32 cost a fifth of the rate, 128 gain nothing; bench/pipeline.ts), and their pixels
 * (0.6 MB at 224, 1.6 MB at 364) stay small beside the weights.
 */
export const imagesInFlight = 64;

/**
 * Run, handing each result to `emit` in order.
 * @returns how many results are errors
 * @throws AdapterError, WeightsError and what else keeps a model from being loaded; InterruptedError after Ctrl-C
 */
export async function runLocally(
  run: LocalRun,
  emit: (result: LocalResult, progress: Progress) => void,
): Promise<number> {
  const model = await chooseLocalModel(run.model, purposeOf(run.items));
  return withModel(model, "stopped before all images were done", async ({ stages, signal, fatal }) => {
    run.attention?.expectLookers(stages.card);
    if (run.frames !== undefined) expectTakesFrames(stages.card);
    const context = { stages, signal, attention: run.attention ?? null, frames: run.frames ?? null };
    let failures = 0;
    const units = run.items.reduce((sum, { asked }) => sum + asked.length, 0);
    const progress = new Progress(units, { noun: run.noun ?? "images" });
    const work = async (item: LocalItem) => {
      const problem = fatal();
      return problem === null ? aboutImage(context, item) : failed(item, problem);
    };
    const take = (results: readonly LocalResult[]) => {
      for (const result of results) {
        if ("error" in result) failures += 1;
        emit(result, progress);
        progress.add("error" in result);
      }
    };
    const { onText } = run;
    if (onText === undefined) {
      await inOrder(run.items, Math.max(1, Math.floor(imagesInFlight / (run.frames ?? 1))), work, take);
    } else {
      for (const item of run.items) {
        const image = await readAndEncode(context, item.image);
        for (const [at, asked] of item.asked.entries()) {
          const tell = (text: string) => onText(item.image, asked.text, text, progress);
          take([await oneText(context, image, asked, 1 + at, tell)]);
        }
      }
    }
    progress.finish();
    return failures;
  });
}

/** What the model is wanted for; one that is of no use for some of the items fails only those. */
function purposeOf(items: readonly LocalItem[]): "texts" | "captions" | "answers" {
  const [purpose = "texts", ...others] = new Set(
    items.flatMap(({ asked }) => asked.map(({ task }) => purposeOfTask[task])),
  );
  return others.length > 0 ? "texts" : purpose;
}

/** What all images of a run share. */
interface Context {
  readonly stages: Stages;
  readonly signal: AbortSignal;
  readonly attention: AttentionFolder | null;
  readonly frames: number | null;
}

/** All texts about one image at once; an image that cannot be read or decoded fails each of them. */
async function aboutImage(context: Context, item: LocalItem): Promise<LocalResult[]> {
  const image = await readAndEncode(context, item.image);
  return Promise.all(item.asked.map((asked, at) => oneText(context, image, asked, 1 + at)));
}

/** What of an image its texts need, or why there is none. */
type Encoded = { readonly image: string } & (
  | { readonly promptFor: PromptFor; readonly digest: string; readonly looked: Looked | null }
  | { readonly problem: unknown }
);

/** What was made of an image, or of a video for this text, for answerFrom and rankAnswers. */
type PromptFor = (text: string | null) => Promise<Activation>;

/** What is kept of an image to say where the model looked. */
interface Looked {
  readonly bytes: Uint8Array;
  readonly features: Activation;
  /** Once, whatever the number of texts, unless the maps depend on them. */
  written?: Promise<string>;
}

async function readAndEncode({ stages, signal, attention, frames: most }: Context, image: string): Promise<Encoded> {
  signal.throwIfAborted();
  try {
    if (most !== null) {
      const { frames, digest } = await readVideo(image, most);
      const made = await promptsOfFrames(stages, frames, { signal });
      return { image, digest, promptFor: (text) => promptOfVideo(stages, made, text, { signal }), looked: null };
    }
    const bytes = await readImageFile(image, insteadOfFolder.jobOrFrames);
    const digest = sha256(bytes);
    if (attention === null) {
      const prompt = await promptOf(stages, bytes, { signal });
      return { image, digest, promptFor: async () => prompt, looked: null };
    }
    const features = await stages.encode(await stages.toPixels(bytes), { signal });
    const { handsOver, instruction } = stages.card;
    const isMadeLater = handsOver === "features" || instruction !== undefined;
    const prompt = isMadeLater ? features : await stages.query(features, { signal });
    return { image, digest, promptFor: async () => prompt, looked: { bytes, features } };
  } catch (problem) {
    signal.throwIfAborted();
    return { image, problem };
  }
}

/** @param number of the text among those about the image, from 1 @param onText told of the text so far */
async function oneText(
  context: Context,
  encoded: Encoded,
  { task, text: asked, generation, answers }: Asked,
  number: number,
  onText?: (text: string) => void,
): Promise<LocalResult> {
  const { stages, signal } = context;
  const { image } = encoded;
  if ("problem" in encoded) return { image, asked, error: describeError(encoded.problem) };
  const { promptFor, digest } = encoded;
  try {
    const text = modelText(stages.card, task, asked);
    const prompt = await promptFor(text);
    if (answers !== undefined) {
      const { lines, ...keep } = answers;
      const ranked = await rankAnswers(stages, prompt, text ?? "", lines, { signal, ...keep });
      const chosen = best(ranked);
      return { image, asked, ...chosen, ranked, ...(await looks(context, encoded, { text, number }, chosen)) };
    }
    const texts = new TextsInOrder(stages, onText);
    const onIds = (ids: readonly number[]) => texts.add(ids);
    const options = { signal, image: digest, ...(onText && { onIds }) };
    const said = await answerFrom(stages, prompt, text, generation, options);
    await texts.all;
    return { image, asked, ...said, ...(await looks(context, encoded, { text, number }, said)) };
  } catch (error) {
    signal.throwIfAborted();
    return { image, asked, error: describeError(error) };
  }
}

/** Write where the model looked, if that was asked for. */
async function looks(
  { stages, signal, attention }: Context,
  { image, looked }: { readonly image: string; readonly looked: Looked | null },
  { text, number }: { readonly text: string | null; readonly number: number },
  { tokenIds }: Answer,
): Promise<{ readonly attention?: string }> {
  if (looked === null || attention === null) return {};
  const { bytes, features } = looked;
  const { lookers, instruction } = stages.card;
  const write = async () => {
    const maps = await attentionMaps(stages, features, text, tokenIds, { signal });
    const ids = lookers === "ids" ? tokenIds : null;
    const read = instruction ? { text: text ?? "", number } : null;
    return attention.write(stages.card, { image, bytes, maps, tokenIds: ids, instruction: read });
  };
  if (instruction) return { attention: await write() };
  looked.written ??= write();
  return { attention: await looked.written };
}

function best([first]: readonly RankedAnswer[]): Answer {
  return { text: first?.text ?? "", tokenIds: first?.tokenIds ?? [] };
}

function failed({ image, asked }: LocalItem, cause: unknown): LocalResult[] {
  const error = describeError(cause);
  return asked.map(({ text }) => ({ image, asked: text, error }));
}
