// Threads and a model, for as long as a command that works in this process needs them.

import { cacheFolder } from "../jobs/roots.ts";
import type { Purpose } from "../models/families.ts";
import type { Dtype, RunSettings } from "../stages.ts";
import type { ModelRequest } from "../workers/gpu-protocol.ts";
import { type OpenedFor, openStagesGroup } from "../workers/stages.ts";
import { resolveDtype } from "./checkpoint-dtype.ts";
import { stopOnInterrupt } from "./interrupt.ts";
import { chooseModel, type ModelFlags, settingsFrom } from "./model-options.ts";
import { tell } from "./output.ts";
import { weightsProgress } from "./weights-progress.ts";

/** A model and its type, chosen for a purpose. */
export interface LocalModel<P extends Purpose> {
  readonly ref: string;
  readonly dtype: Dtype;
  readonly settings?: RunSettings;
  readonly purpose: P;
}

export interface ModelRun<P extends Purpose> {
  readonly stages: OpenedFor[P];
  /** Aborts at Ctrl-C. */
  readonly signal: AbortSignal;
  /** After it nothing works; null until then. */
  fatal(): Error | null;
}

/** --model, --dtype and settings, or the demo model. @throws UsageError, and what opening a checkpoint throws */
export async function chooseLocalModel<P extends Purpose>(flags: ModelFlags, purpose: P): Promise<LocalModel<P>> {
  const { ref, notice } = chooseModel(flags.model, purpose);
  if (notice !== null) tell(notice);
  return { ref, dtype: await resolveDtype(ref, flags.dtype), settings: settingsFrom(flags), purpose };
}

/**
 * Load a model, run `work`, close everything.
 * @param request stages: those that are needed, default all
 * @param interrupted what is told after Ctrl-C
 * @throws AdapterError, WeightsError and what else keeps a model from being loaded; InterruptedError after Ctrl-C
 */
export async function withModel<P extends Purpose, T>(
  request: ModelRequest<P> & { readonly purpose: P },
  interrupted: string,
  work: (run: ModelRun<P>) => Promise<T>,
): Promise<T> {
  const group = await openStagesGroup({ cacheFolder: cacheFolder() });
  const stop = stopOnInterrupt(interrupted);
  try {
    const loading = weightsProgress();
    const stages = await group.open<P>(request, loading.report);
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
