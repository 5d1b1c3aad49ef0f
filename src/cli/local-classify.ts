// Labels that are compared with one image in this process: the image is encoded once, and labels share batches.

import { imageVector, type LabelScore, labelVector, scoresOfRead } from "../classifying.ts";
import { describeError } from "./errors.ts";
import { readImageFile } from "./image-files.ts";
import { inOrder } from "./in-order.ts";
import { chooseLocalModel, type ModelRun, withModel } from "./local-model.ts";
import type { ModelFlags } from "./model-options.ts";
import { Progress } from "./progress.ts";

/** One line of output. */
export type LabelResult = { readonly image: string; readonly label: string } & (
  | LabelScore
  | { readonly error: { readonly type: string; readonly message: string } }
);

export interface LocalClassification {
  readonly image: string;
  readonly labels: readonly string[];
  /** See labelVector. */
  readonly templates: readonly string[];
  readonly model: ModelFlags;
}

/** Labels under way at once; a few full batches. */
const labelsInFlight = 64;

/**
 * @returns a result for each label, in order
 * @throws what keeps a model from being loaded; InterruptedError after Ctrl-C
 */
export async function classifyLocally({
  image,
  labels,
  templates,
  model,
}: LocalClassification): Promise<LabelResult[]> {
  const chosen = await chooseLocalModel(model, "labels");
  return withModel(chosen, "stopped before all labels were done", async (run) => {
    const { stages, signal } = run;
    const seen = await unlessFailed(run, async () => imageVector(stages, await readImageFile(image), { signal }));
    if (seen instanceof Error) return labels.map((label) => ({ image, label, error: describeError(seen) }));
    const progress = new Progress(labels.length, { noun: "labels" });
    const vectors: (Float32Array | Error)[] = [];
    const work = (label: string) => unlessFailed(run, () => labelVector(stages, label, templates, { signal }));
    await inOrder(labels, labelsInFlight, work, (vector) => {
      vectors.push(vector);
      progress.add(vector instanceof Error);
    });
    progress.finish();
    return scoresOfRead(seen, vectors, stages.card.logitScale).map((score, i): LabelResult => {
      const named = { image, label: labels[i] ?? "" };
      return score instanceof Error ? { ...named, error: describeError(score) } : { ...named, ...score };
    });
  });
}

/** What `work` gives, or why it could not. @throws the signal's reason once it is aborted */
async function unlessFailed<T>({ signal, fatal }: ModelRun<"labels">, work: () => Promise<T>): Promise<T | Error> {
  signal.throwIfAborted();
  try {
    const problem = fatal();
    return problem ?? (await work());
  } catch (error) {
    signal.throwIfAborted();
    return error instanceof Error ? error : new Error(String(error));
  }
}
