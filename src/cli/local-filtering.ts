// Image-text pairs that are captioned and judged in this process, by two models on one GPU; results come out in the order of
// the input.

import { filterTexts } from "../filtering.ts";
import type { Decision } from "../messages/item-result.ts";
import type { Generation } from "../stages.ts";
import { modelText } from "../workers/activities/model-text.ts";
import { describeError } from "./errors.ts";
import { readListedFile } from "./image-files.ts";
import { type SourceImage, sourceImages } from "./image-sources.ts";
import { inOrder } from "./in-order.ts";
import { chooseLocalModel, type ModelsRun, withModels } from "./local-model.ts";
import type { ModelFlags } from "./model-options.ts";
import { Progress } from "./progress.ts";

/** What came of one image. */
export type FilterResult = { readonly image: string } & (
  | { readonly decisions: readonly Decision[] }
  | { readonly error: { readonly type: string; readonly message: string } }
);

export interface LocalFiltering {
  readonly sources: readonly string[];
  /** See SourceOptions. */
  readonly imageFolder: string | undefined;
  /** Captions. */
  readonly model: ModelFlags;
  /** Judges; undefined: the demo model. */
  readonly filterModel: string | undefined;
  /** For images without their own. */
  readonly prompt: string | null;
  readonly generation: Generation;
  readonly threshold: number;
}

export interface FilterCounts {
  /** Images that could not be captioned or judged. */
  readonly failures: number;
  readonly judged: number;
  readonly kept: number;
}

/** Images under way at once: full batches of both models. */
const imagesInFlight = 32;

/**
 * Run, handing each result to `emit` in order.
 * @throws UsageError, ManifestError, what keeps a model from being loaded; InterruptedError after Ctrl-C
 */
export async function filterLocally(
  { sources, imageFolder, model, filterModel, ...settings }: LocalFiltering,
  emit: (result: FilterResult, progress: Progress) => void,
): Promise<FilterCounts> {
  const images = await sourceImages(sources, { texts: true, imageFolder });
  const captioner = await chooseLocalModel(model, "captions");
  const { model: _, ...form } = model;
  const matcher = await chooseLocalModel(
    { ...form, ...(filterModel !== undefined && { model: filterModel }) },
    "matches",
  );
  const interrupted = "stopped before all images were done";
  return withModels<readonly ["captions", "matches"], FilterCounts>([captioner, matcher], interrupted, async (run) => {
    const counts = { failures: 0, judged: 0, kept: 0 };
    const progress = new Progress(images.length, { noun: "images" });
    const work = (image: SourceImage) => oneImage(run, image, settings);
    await inOrder(images, imagesInFlight, work, (result) => {
      if ("error" in result) {
        counts.failures += 1;
      } else {
        counts.judged += result.decisions.length;
        counts.kept += result.decisions.filter(({ kept }) => kept).length;
      }
      emit(result, progress);
      progress.add("error" in result);
    });
    progress.finish();
    return counts;
  });
}

async function oneImage(
  { stages: [captioner, matcher], signal, fatal }: ModelsRun<readonly ["captions", "matches"]>,
  { image, path, texts, prompt }: SourceImage,
  settings: Pick<LocalFiltering, "prompt" | "generation" | "threshold">,
): Promise<FilterResult> {
  signal.throwIfAborted();
  try {
    const problem = fatal();
    if (problem !== null) throw problem;
    const bytes = await readListedFile({ image, path });
    const own = { ...settings, prompt: modelText(captioner.card, "capfilt", prompt ?? settings.prompt) };
    return { image, decisions: await filterTexts(captioner, matcher, bytes, texts, own, { signal }) };
  } catch (error) {
    signal.throwIfAborted();
    return { image, error: describeError(error) };
  }
}
