// Texts that are matched with one image in this process: the image is encoded once, texts share batches, and results come
// out in the order of the texts.

import { type EncodedImage, encodeImage, matchWith } from "../matching.ts";
import { describeError } from "./errors.ts";
import { readImageFile } from "./image-files.ts";
import { inOrder } from "./in-order.ts";
import { chooseLocalModel, type ModelRun, withModel } from "./local-model.ts";
import type { ModelFlags } from "./model-options.ts";
import { Progress } from "./progress.ts";

/** One line of output. */
export type MatchResult = { readonly image: string; readonly text: string } & (
  | { readonly itm: number; readonly itc: number }
  | { readonly error: { readonly type: string; readonly message: string } }
);

/** Texts under way at once; a few full batches. */
const textsInFlight = 64;

/**
 * Run, handing each result to `emit` in order.
 * @returns how many results are errors
 * @throws what keeps a model from being loaded; InterruptedError after Ctrl-C
 */
export async function matchLocally(
  { image, texts, model }: { readonly image: string; readonly texts: readonly string[]; readonly model: ModelFlags },
  emit: (result: MatchResult, progress: Progress) => void,
): Promise<number> {
  const chosen = await chooseLocalModel(model, "matches");
  return withModel(chosen, "stopped before all texts were done", async (run) => {
    let failures = 0;
    const progress = new Progress(texts.length, { noun: "texts" });
    const encoded = await tryToEncode(run, image);
    const work = (text: string) => oneText(run, encoded, image, text);
    await inOrder(texts, textsInFlight, work, (result) => {
      if ("error" in result) failures += 1;
      emit(result, progress);
      progress.add("error" in result);
    });
    progress.finish();
    return failures;
  });
}

/** The image, or why it cannot be matched with anything. */
async function tryToEncode({ stages, signal }: ModelRun<"matches">, image: string): Promise<EncodedImage | Error> {
  try {
    return await encodeImage(stages, await readImageFile(image), { signal });
  } catch (error) {
    signal.throwIfAborted();
    return error instanceof Error ? error : new Error(String(error));
  }
}

async function oneText(
  { stages, signal, fatal }: ModelRun<"matches">,
  encoded: EncodedImage | Error,
  image: string,
  text: string,
): Promise<MatchResult> {
  signal.throwIfAborted();
  try {
    const problem = fatal() ?? (encoded instanceof Error ? encoded : null);
    if (problem !== null) throw problem;
    return { image, text, ...(await matchWith(stages, encoded as EncodedImage, text, { signal })) };
  } catch (error) {
    signal.throwIfAborted();
    return { image, text, error: describeError(error) };
  }
}
