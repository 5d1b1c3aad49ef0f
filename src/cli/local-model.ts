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

/** Models that are used together: the stages of each, in their order. */
export interface ModelsRun<P extends readonly Purpose[]> extends Omit<ModelRun<Purpose>, "stages"> {
  readonly stages: { readonly [I in keyof P]: OpenedFor[P[I]] };
}

/** A model to load. `stages`: those that are needed, default all. */
export type LocalRequest<P extends Purpose> = ModelRequest<P> & { readonly purpose: P };

/**
 * Load a model, run `work`, close everything.
 * @param interrupted what is told after Ctrl-C
 * @throws AdapterError, WeightsError and what else keeps a model from being loaded; InterruptedError after Ctrl-C
 */
export async function withModel<P extends Purpose, T>(
  request: LocalRequest<P>,
  interrupted: string,
  work: (run: ModelRun<P>) => Promise<T>,
): Promise<T> {
  return withModels<readonly [P], T>([request], interrupted, ({ stages: [stages], ...run }) =>
    work({ ...run, stages }),
  );
}

/** The same of several models on one GPU. @throws as withModel */
export async function withModels<P extends readonly Purpose[], T>(
  requests: { readonly [I in keyof P]: LocalRequest<P[I]> },
  interrupted: string,
  work: (run: ModelsRun<P>) => Promise<T>,
): Promise<T> {
  const group = await openStagesGroup({ cacheFolder: cacheFolder() });
  const stop = stopOnInterrupt(interrupted);
  try {
    const opened: OpenedFor[Purpose][] = [];
    for (const request of requests) {
      const loading = weightsProgress();
      opened.push(await group.open<Purpose>(request, loading.report));
      loading.finish();
    }
    let fatal: Error | null = null;
    void group.fatal.then((error) => {
      fatal = error;
    });
    const stages = opened as unknown as ModelsRun<P>["stages"]; // one for each request, by its purpose
    const result = await work({ stages, signal: stop.signal, fatal: () => fatal });
    if (fatal !== null) throw fatal;
    return result;
  } finally {
    stop.forget();
    await group.close("reject");
  }
}
