// Threads and a model that compares images with texts, for as long as a command needs them.

import { cacheFolder } from "../jobs/roots.ts";
import type { Dtype } from "../stages.ts";
import { type OpenedRetrievalStages, openStagesGroup } from "../workers/stages.ts";
import { resolveDtype } from "./checkpoint-dtype.ts";
import { stopOnInterrupt } from "./interrupt.ts";
import { chooseModel, type ModelFlags } from "./model-options.ts";
import { tell } from "./output.ts";
import { weightsProgress } from "./weights-progress.ts";

export interface RetrievalRun {
  readonly stages: OpenedRetrievalStages;
  /** Aborts at Ctrl-C. */
  readonly signal: AbortSignal;
  /** After it nothing works; null until then. */
  fatal(): Error | null;
}

/** A model and its type, chosen. */
export interface RetrievalModel {
  readonly ref: string;
  readonly dtype: Dtype;
}

/** --model and --dtype, or the demo model. @throws UsageError, and what opening a checkpoint throws */
export async function chooseRetrievalModel(flags: ModelFlags): Promise<RetrievalModel> {
  const { ref, notice } = chooseModel(flags.model, "retrieval");
  if (notice !== null) tell(notice);
  return { ref, dtype: await resolveDtype(ref, flags.dtype) };
}

/**
 * Load the model, run `work`, close everything.
 * @param options stages: those that are needed, default all; interrupted: what is told after Ctrl-C
 * @throws AdapterError, WeightsError and what else keeps a model from being loaded; InterruptedError after Ctrl-C
 */
export async function withRetrieval<T>(
  { ref, dtype }: RetrievalModel,
  options: { readonly stages?: readonly ("encode" | "query")[]; readonly interrupted: string },
  work: (run: RetrievalRun) => Promise<T>,
): Promise<T> {
  const group = await openStagesGroup({ cacheFolder: cacheFolder() });
  const stop = stopOnInterrupt(options.interrupted);
  try {
    const loading = weightsProgress();
    const wanted = options.stages === undefined ? {} : { stages: options.stages };
    const stages = await group.openRetrieval({ ref, dtype, ...wanted }, loading.report);
    loading.finish();
    let fatal: Error | null = null;
    void group.fatal.then((error) => {
      fatal = error;
    });
    const result = await work({ stages, signal: stop.signal, fatal: () => fatal });
    if (fatal !== null) throw fatal;
    return result;
  } finally {
    stop.forget();
    await group.close("reject");
  }
}
