// What the GPU thread runs: the self-test, and checkpoints as programs. Tests put a module of their own in its place.

import type { Gpu } from "../gpu/device.ts";
import {
  type LoadedModel,
  type LoadedRetrievalModel,
  loadModel as loadCheckpoint,
  loadRetrievalModel,
} from "../models/load-model.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import type { WeightsProgress } from "../weights/repository.ts";
import type { ModelKind, ModelRequest } from "./gpu-protocol.ts";

export interface LoadOptions {
  /** Where hashes of checkpoint files are remembered. */
  readonly cacheFolder: string;
  readonly onProgress: (progress: WeightsProgress) => void;
}

export type OpenedModel = (LoadedModel | LoadedRetrievalModel) & {
  /** The checkpoint's folder, where its tokenizer is. */
  readonly folder: string;
};

/** This module's shape. */
export interface GpuModels {
  /** @throws KernelError when a kernel gives a wrong answer on this device */
  selfTest(gpu: Gpu): Promise<void>;
  /** @throws CheckpointError, ConfigError, WeightsError, UnsupportedModelError, OutOfMemoryError */
  loadModel(gpu: Gpu, request: ModelRequest, kind: ModelKind, options: LoadOptions): Promise<OpenedModel>;
}

export { selfTest } from "../kernels/self-test.ts";

export async function loadModel(
  gpu: Gpu,
  request: ModelRequest,
  kind: ModelKind,
  options: LoadOptions,
): Promise<OpenedModel> {
  const { ref, dtype, stages } = request;
  const checkpoint = await openCheckpoint(ref, { onProgress: options.onProgress });
  const load = kind === "generation" ? loadCheckpoint : loadRetrievalModel;
  const loaded = await load(gpu, checkpoint, {
    dtype,
    ...options,
    ...(stages === undefined ? {} : { stages }),
  });
  return { ...loaded, folder: checkpoint.folder };
}
