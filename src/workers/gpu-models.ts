// What the GPU thread runs: the self-test, and checkpoints as programs. Tests put a module of their own in its place.

import type { Gpu } from "../gpu/device.ts";
import type { Purpose } from "../models/families.ts";
import { type LoadedModel, loadModel as loadCheckpoint } from "../models/load-model.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import type { WeightsProgress } from "../weights/repository.ts";
import type { ModelRequest } from "./gpu-protocol.ts";

export interface LoadOptions {
  /** Where hashes of checkpoint files are remembered. */
  readonly cacheFolder: string;
  readonly onProgress: (progress: WeightsProgress) => void;
}

export type OpenedModel = LoadedModel<Purpose> & {
  /** The checkpoint's folder, where its tokenizer is. */
  readonly folder: string;
};

/** This module's shape. */
export interface GpuModels {
  /** @throws KernelError when a kernel gives a wrong answer on this device */
  selfTest(gpu: Gpu): Promise<void>;
  /** @throws CheckpointError, ConfigError, WeightsError, UnsupportedModelError, OutOfMemoryError */
  loadModel(gpu: Gpu, request: ModelRequest, options: LoadOptions): Promise<OpenedModel>;
}

export { selfTest } from "../kernels/self-test.ts";

export async function loadModel(gpu: Gpu, request: ModelRequest, options: LoadOptions): Promise<OpenedModel> {
  const { ref, ...wanted } = request;
  const checkpoint = await openCheckpoint(ref, { onProgress: options.onProgress });
  const loaded = await loadCheckpoint(gpu, checkpoint, { ...wanted, ...options });
  return { ...loaded, folder: checkpoint.folder };
}
