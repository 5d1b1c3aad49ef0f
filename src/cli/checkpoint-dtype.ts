// --dtype auto: the type in which the checkpoint itself is stored, so that the answer is the same on every machine.

import type { Dtype } from "../stages.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import type { DtypeChoice } from "./model-options.ts";
import { weightsProgress } from "./weights-progress.ts";

/**
 * The type to load with: as asked, else f16 when a weight of the checkpoint is stored in half precision (f16, bf16),
 * else f32. Downloads the checkpoint first if need be, with progress.
 * @throws CheckpointError, ConfigError, HubError, WeightsError
 */
export async function resolveDtype(ref: string, choice: DtypeChoice): Promise<Dtype> {
  if (choice !== "auto") return choice;
  const progress = weightsProgress();
  const checkpoint = await openCheckpoint(ref, { onProgress: progress.report });
  progress.finish();
  const half = [...checkpoint.tensors.values()].some(({ dtype }) => dtype === "F16" || dtype === "BF16");
  return half ? "f16" : "f32";
}
