// Threads and a model, for as long as a command that works in this process needs them.

import { cacheFolder } from "../jobs/roots.ts";
import type { Dtype } from "../stages.ts";
import type { WeightsProgress } from "../weights/repository.ts";
import { type OpenedRetrievalStages, openStagesGroup, type StagesGroup } from "../workers/stages.ts";
import { resolveDtype } from "./checkpoint-dtype.ts";
import { stopOnInterrupt } from "./interrupt.ts";
import { chooseModel, type ModelFlags, type ModelPurpose } from "./model-options.ts";
import { tell } from "./output.ts";
import { weightsProgress } from "./weights-progress.ts";

/** A model and its type, chosen. */
export interface LocalModel {
  readonly ref: string;
  readonly dtype: Dtype;
}

export interface ModelRun<Opened> {
  readonly stages: Opened;
  /** Aborts at Ctrl-C. */
  readonly signal: AbortSignal;
  /** After it nothing works; null until then. */
  fatal(): Error | null;
}

export type RetrievalRun = ModelRun<OpenedRetrievalStages>;

/** --model and --dtype, or the demo model. @throws UsageError, and what opening a checkpoint throws */
export async function chooseLocalModel(flags: ModelFlags, purpose: ModelPurpose): Promise<LocalModel> {
  const { ref, notice } = chooseModel(flags.model, purpose);
  if (notice !== null) tell(notice);
  return { ref, dtype: await resolveDtype(ref, flags.dtype) };
}

/**
 * Load a model, run `work`, close everything.
 * @param open loads it; @param interrupted what is told after Ctrl-C
 * @throws AdapterError, WeightsError and what else keeps a model from being loaded; InterruptedError after Ctrl-C
 */
export async function withModel<Opened, T>(
  open: (group: StagesGroup, onProgress: (progress: WeightsProgress) => void) => Promise<Opened>,
  interrupted: string,
  work: (run: ModelRun<Opened>) => Promise<T>,
): Promise<T> {
  const group = await openStagesGroup({ cacheFolder: cacheFolder() });
  const stop = stopOnInterrupt(interrupted);
  try {
    const loading = weightsProgress();
    const stages = await open(group, loading.report);
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

/** The same with a model that compares images with texts. @param options stages: those that are needed, default all */
export function withRetrieval<T>(
  model: LocalModel,
  { stages, interrupted }: { readonly stages?: readonly ("encode" | "query")[]; readonly interrupted: string },
  work: (run: RetrievalRun) => Promise<T>,
): Promise<T> {
  const request = { ...model, ...(stages === undefined ? {} : { stages }) };
  return withModel((group, onProgress) => group.openRetrieval(request, onProgress), interrupted, work);
}
