// Images into an index, in this process: files are read ahead while the GPU works, known ones are only looked up, and the
// index is replaced once, at the end.

import { resolve } from "node:path";
import { sha256 } from "../jobs/store.ts";
import { encodeImage } from "../matching.ts";
import { expectModel, expectType, openImageIndex } from "../search/vector-file.ts";
import type { WhenCoded } from "../search/vector-file-writer.ts";
import { InterruptedError } from "./errors.ts";
import { readListedFile } from "./image-files.ts";
import { type SourceImage, sourceImages } from "./image-sources.ts";
import { inOrder } from "./in-order.ts";
import {
  type IndexCounts,
  type IndexResult,
  IndexUpdate,
  indexModel,
  type Looked,
  storedType,
} from "./indexing-update.ts";
import { chooseLocalModel, type ModelRun, withModel } from "./local-model.ts";
import { imagesInFlight } from "./local-run.ts";
import type { ModelFlags } from "./model-options.ts";
import { Progress } from "./progress.ts";

export interface LocalIndexing {
  readonly sources: readonly string[];
  /** See SourceOptions. */
  readonly imageFolder?: string | undefined;
  readonly file: string;
  readonly model: ModelFlags;
  /** How vectors are stored; undefined: as the index has them, a new one as the model gives them. */
  readonly vectors: "full" | "int8" | undefined;
  readonly codes: WhenCoded;
}

/**
 * Run, handing each result to `emit` in order.
 * @throws UsageError, ImageIndexError, what keeps a model from being loaded; InterruptedError after Ctrl-C, with what was
 * done in the index
 */
export async function indexLocally(
  { sources, imageFolder, file, model, vectors, codes }: LocalIndexing,
  emit: (result: IndexResult, progress: Progress) => void,
): Promise<IndexCounts> {
  const old = await openImageIndex(file);
  const images = await sourceImages(sources, { imageFolder });
  const chosen = await chooseLocalModel(model, "vectors");
  return withModel(chosen, "stopped before all images were done", async (run) => {
    const wanted = indexModel(chosen.ref, run.stages.card);
    if (old !== null) expectModel(old, wanted);
    const type = storedType(old, wanted, vectors);
    if (old !== null) expectType(old, type);
    const update = await IndexUpdate.begin(file, old, wanted, { type, codes });
    let failed = 0;
    try {
      const progress = new Progress(images.length, { noun: "images" });
      const work = (image: SourceImage) => look(run, image, update);
      await inOrder(images, imagesInFlight, work, async (looked) => {
        const result = await update.take(looked);
        if ("error" in result) failed += 1;
        emit(result, progress);
        progress.add("error" in result);
      });
      progress.finish();
    } catch (error) {
      if (error instanceof InterruptedError) {
        const { encoded, images } = await update.end();
        throw new InterruptedError(`interrupted; ${encoded} images were encoded, ${images} are in ${file}`);
      }
      await update.leave();
      throw error;
    }
    const fatal = run.fatal();
    if (fatal !== null) {
      await update.leave();
      throw fatal;
    }
    return { ...(await update.end()), failed };
  });
}

/** Read an image, and encode it unless its bytes are known. */
async function look(
  { stages, signal, fatal }: ModelRun<"vectors">,
  { image, path }: SourceImage,
  update: IndexUpdate,
): Promise<Looked> {
  signal.throwIfAborted();
  try {
    const problem = fatal();
    if (problem !== null) throw problem;
    const bytes = await readListedFile({ image, path });
    const digest = sha256(bytes);
    const encode = async () => update.stored((await encodeImage(stages, bytes, { signal })).vectors);
    return { image, path: resolve(path), digest, vectors: await update.vectorsOf(digest, encode) };
  } catch (error) {
    signal.throwIfAborted();
    return { image, error };
  }
}
