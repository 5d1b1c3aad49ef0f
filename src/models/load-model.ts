// From a reference to programs: open the checkpoint, check it whole, load the parts that the stages need.

import type { Gpu } from "../gpu/device.ts";
import type { WorkingBytes } from "../gpu/row-program.ts";
import type { Stage } from "../messages/job.ts";
import type { Dtype, RunSettings } from "../stages.ts";
import { type Checkpoint, openCheckpoint } from "../weights/checkpoint.ts";
import { checkpointDigest } from "../weights/digest.ts";
import type { WeightsProgress } from "../weights/repository.ts";
import type { OpenedPrograms } from "./checked-model.ts";
import { UnsupportedModelError } from "./errors.ts";
import type { Purpose } from "./families.ts";
import { WeightLoader } from "./load.ts";
import { expectRoom, type MemoryPlan, weightsTotal } from "./memory-plan.ts";
import { type Cards, checkModel, type Programs, type PurposeOption } from "./model-card.ts";

export interface LoadOptions {
  readonly dtype: Dtype;
  /** The stages to serve. Default: all that the model has. */
  readonly stages?: readonly Stage[];
  /** Where hashes of weight files are remembered; without it every load reads them whole. */
  readonly cacheFolder?: string;
  readonly onProgress?: (progress: WeightsProgress) => void;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** Default: as the checkpoint is. */
  readonly settings?: RunSettings;
}

/** A model on a device, by what it was loaded for. */
export interface LoadedModel<P extends Purpose = "texts"> {
  readonly card: Cards[P];
  /** Those that the stages asked for. */
  readonly programs: Programs[P];
  /** Bytes of weights by part. */
  readonly memory: MemoryPlan;
  /** What one row under way takes beside them, under default settings. */
  readonly rowBytes: WorkingBytes;
  /** Free weights and recordings. No program may be used any more. */
  release(): void;
}

/**
 * Load a model, by default one that writes texts. Nothing stays allocated when it fails.
 * @param model a Hugging Face id or directory, or a checkpoint that is open already
 * @throws CheckpointError, ConfigError, HubError, UnsupportedModelError, WeightsError before anything is uploaded;
 * OutOfMemoryError with the plan's numbers
 */
export async function loadModel<P extends Purpose = "texts">(
  gpu: Gpu,
  model: string | Checkpoint,
  options: LoadOptions & PurposeOption<P>,
): Promise<LoadedModel<P>> {
  const { dtype, stages, onProgress } = options;
  const checkpoint = typeof model === "string" ? await openCheckpoint(model, options) : model;
  // Hashing begins once it is known that the checkpoint can be loaded, and goes on beside that.
  const checked = await checkModel(checkpoint, dtype, { ...options, digest: "" });
  const plan = checked.plan(gpu, stages);
  const planUnder = async (other: Dtype) => {
    try {
      return (await checkModel(checkpoint, other, { ...options, digest: "" })).plan(gpu, stages);
    } catch (error) {
      if (error instanceof UnsupportedModelError) return null;
      throw error;
    }
  };
  await expectRoom(gpu, checked.card, plan, planUnder, options.environment);
  const { weights: memory, row: rowBytes } = plan;
  const total = weightsTotal(plan);
  let done = 0;
  let isLoading = true;
  const loader = new WeightLoader(gpu, checkpoint, dtype, (bytes) => {
    done += bytes;
    onProgress?.({ phase: "upload", what: checkpoint.ref, done: Math.min(done, total), total });
  });
  const failed = new AbortController();
  const digest = checkpointDigest(checkpoint, {
    ...options,
    signal: failed.signal,
    // One phase at a time: what is left of the hashing is told when the weights are there.
    onProgress: (progress) => isLoading || onProgress?.(progress),
  });
  digest.catch(() => {});
  let opened: OpenedPrograms<Programs[P]> | undefined;
  const release = () => {
    opened?.close();
    loader.release();
  };
  try {
    opened = await checked.load(gpu, loader, stages);
    loader.finish();
    isLoading = false;
    return { card: { ...checked.card, digest: await digest }, programs: opened.programs, memory, rowBytes, release };
  } catch (error) {
    failed.abort(error);
    release();
    throw error;
  }
}
