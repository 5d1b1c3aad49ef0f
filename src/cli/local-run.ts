// Texts about images in this process: files are read and decoded ahead while the GPU works, every image is encoded
// once however many questions there are, and results come out in the order of the input.

import { answerFrom, promptOf } from "../answer.ts";
import { sha256 } from "../jobs/store.ts";
import type { Generation, Stages } from "../stages.ts";
import { modelText } from "../workers/activities/model-text.ts";
import { describeError } from "./errors.ts";
import { readImageFile } from "./image-files.ts";
import { inOrder } from "./in-order.ts";
import { chooseLocalModel, withModel } from "./local-model.ts";
import type { ModelFlags } from "./model-options.ts";
import { Progress } from "./progress.ts";

export interface LocalRun {
  readonly items: readonly LocalItem[];
  readonly model: ModelFlags;
  /** What progress counts, one unit per image and text. Default "images". */
  readonly noun?: string;
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
}

/** The same of every image. */
export function ofEvery(images: readonly string[], asked: readonly Asked[]): LocalItem[] {
  return images.map((image) => ({ image, asked }));
}

/** One line of output. */
export type LocalResult = { readonly image: string; readonly asked: string | null } & (
  | { readonly text: string; readonly tokenIds: readonly number[] }
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
  const model = await chooseLocalModel(run.model, "texts");
  const interrupted = "stopped before all images were done";
  return withModel(
    (group, report) => group.open(model, report),
    interrupted,
    async ({ stages, signal, fatal }) => {
      let failures = 0;
      const units = run.items.reduce((sum, { asked }) => sum + asked.length, 0);
      const progress = new Progress(units, { noun: run.noun ?? "images" });
      const work = async (item: LocalItem) => {
        const problem = fatal();
        return problem === null ? aboutImage(stages, item, signal) : failed(item, problem);
      };
      await inOrder(run.items, imagesInFlight, work, (results) => {
        for (const result of results) {
          if ("error" in result) failures += 1;
          emit(result, progress);
          progress.add("error" in result);
        }
      });
      progress.finish();
      return failures;
    },
  );
}

/** All texts about one image; an image that cannot be read or decoded fails each of them. */
async function aboutImage(stages: Stages, item: LocalItem, signal: AbortSignal): Promise<LocalResult[]> {
  const { image } = item;
  signal.throwIfAborted();
  try {
    const bytes = await readImageFile(image);
    const digest = sha256(bytes);
    const prompt = await promptOf(stages, bytes, { signal });
    return await Promise.all(
      item.asked.map(async ({ task, text: asked, generation }): Promise<LocalResult> => {
        try {
          const text = modelText(stages.card.family, task, asked);
          return { image, asked, ...(await answerFrom(stages, prompt, text, generation, { signal, image: digest })) };
        } catch (error) {
          signal.throwIfAborted();
          return { image, asked, error: describeError(error) };
        }
      }),
    );
  } catch (error) {
    signal.throwIfAborted();
    return failed(item, error);
  }
}

function failed({ image, asked }: LocalItem, cause: unknown): LocalResult[] {
  const error = describeError(cause);
  return asked.map(({ text }) => ({ image, asked: text, error }));
}
