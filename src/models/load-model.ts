// From a reference to programs: open the checkpoint, check it whole, load the parts that the stages need.

import { totalmem } from "node:os";
import { constrainedMemory } from "node:process";
import { adapterLine } from "../gpu/adapter.ts";
import type { Gpu } from "../gpu/device.ts";
import { OutOfMemoryError } from "../gpu/errors.ts";
import type { CheckpointCard, Dtype, ModelCard, RetrievalCard } from "../stages.ts";
import { type Checkpoint, openCheckpoint } from "../weights/checkpoint.ts";
import { optNames, projectionNames, qFormerNames, vitNames } from "../weights/names/blip-2-opt.ts";
import { qFormerWithTextNames, retrievalHeadNames } from "../weights/names/blip-2-retrieval.ts";
import type { WeightsProgress } from "../weights/repository.ts";
import { type Blip2Programs, type Blip2Weights, blip2Programs } from "./blip-2.ts";
import type { Blip2Config } from "./blip-2-config.ts";
import { type RetrievalPrograms, retrievalPrograms } from "./blip-2-retrieval.ts";
import { WeightLoader, weightBytes } from "./load.ts";
import { checkModel, checkRetrievalModel } from "./model-card.ts";

export interface LoadOptions {
  readonly dtype: Dtype;
  /** The stages to serve. Default: all. */
  readonly stages?: readonly ("encode" | "query" | "generate")[];
  /** Where hashes of weight files are remembered; without it every load reads them whole. */
  readonly cacheFolder?: string;
  readonly onProgress?: (progress: WeightsProgress) => void;
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

export interface Loaded<Card, Programs> {
  readonly card: Card;
  /** Those that the stages asked for; encodeAndQuery where both are there. */
  readonly programs: Programs;
  /** Bytes of weights by part. */
  readonly memory: MemoryPlan;
  /** Free weights and recordings. No program may be used any more. */
  release(): void;
}

export type LoadedModel = Loaded<ModelCard, Blip2Programs>;
export type LoadedRetrievalModel = Loaded<RetrievalCard, RetrievalPrograms>;

export type MemoryPlan = Readonly<Partial<Record<"encode" | "query" | "generate", number>>>;

/**
 * A model that writes texts.
 * @param model a Hugging Face id or directory, or a checkpoint that is open already
 * @throws CheckpointError, ConfigError, HubError, UnsupportedModelError, WeightsError before anything is uploaded;
 * OutOfMemoryError with the plan's numbers
 */
export async function loadModel(gpu: Gpu, model: string | Checkpoint, options: LoadOptions): Promise<LoadedModel> {
  const checkpoint = typeof model === "string" ? await openCheckpoint(model, options) : model;
  const { card, config } = await checkModel(checkpoint, options.dtype, options);
  const wanted = new Set(options.stages ?? ["encode", "query", "generate"]);
  const memory = memoryPlan(config, options.dtype, wanted);
  return load(gpu, checkpoint, { card, memory }, options, async (loader) =>
    blip2Programs(gpu, await loadParts(loader, config, wanted), config, card),
  );
}

/**
 * A model that compares images with texts: the same for Blip2ForImageTextRetrieval, whose stages are encode and query.
 * @throws as loadModel
 */
export async function loadRetrievalModel(
  gpu: Gpu,
  model: string | Checkpoint,
  options: LoadOptions,
): Promise<LoadedRetrievalModel> {
  const checkpoint = typeof model === "string" ? await openCheckpoint(model, options) : model;
  const { card, config } = await checkRetrievalModel(checkpoint, options.dtype, options);
  const wanted = new Set(options.stages ?? ["encode", "query"]);
  const names = { qFormer: qFormerWithTextNames(config), heads: retrievalHeadNames(config) };
  const memory = {
    ...(wanted.has("encode") && { encode: weightBytes(vitNames(config), options.dtype) }),
    ...(wanted.has("query") && { query: weightBytes(names, options.dtype) }),
  };
  return load(gpu, checkpoint, { card, memory }, options, async (loader) => {
    const weights = {
      ...(wanted.has("encode") && { vit: await loader.load(vitNames(config)) }),
      ...(wanted.has("query") && (await loader.load(names))),
    };
    return retrievalPrograms(gpu, weights, config, card);
  });
}

/** Upload what `make` loads, with progress; nothing stays allocated when it fails. */
async function load<Card extends CheckpointCard, Programs>(
  gpu: Gpu,
  checkpoint: Checkpoint,
  { card, memory }: { readonly card: Card; readonly memory: MemoryPlan },
  { dtype, onProgress }: LoadOptions,
  make: (loader: WeightLoader) => Promise<{ readonly programs: Programs; close(): void }>,
): Promise<Loaded<Card, Programs>> {
  const total = expectRoom(gpu, card, memory);
  let done = 0;
  const loader = new WeightLoader(gpu, checkpoint, dtype, (bytes) => {
    done += bytes;
    onProgress?.({ phase: "upload", what: checkpoint.ref, done: Math.min(done, total), total });
  });
  try {
    const { programs, close } = await make(loader);
    loader.finish();
    return {
      card,
      programs,
      memory,
      release() {
        close();
        loader.release();
      },
    };
  } catch (error) {
    loader.release();
    throw error;
  }
}

async function loadParts(
  loader: WeightLoader,
  config: Blip2Config,
  wanted: ReadonlySet<string>,
): Promise<Blip2Weights> {
  return {
    ...(wanted.has("encode") && { vit: await loader.load(vitNames(config)) }),
    ...(wanted.has("query") && {
      qFormer: await loader.load(qFormerNames(config)),
      projection: await loader.load(projectionNames(config)),
    }),
    ...(wanted.has("generate") && { opt: await loader.load(optNames(config)) }),
  };
}

/** Bytes of weights by part, for the parts that are wanted. */
export function memoryPlan(config: Blip2Config, dtype: Dtype, wanted: ReadonlySet<string>): MemoryPlan {
  return {
    ...(wanted.has("encode") && { encode: weightBytes(vitNames(config), dtype) }),
    ...(wanted.has("query") && {
      query: weightBytes({ qFormer: qFormerNames(config), projection: projectionNames(config) }, dtype),
    }),
    ...(wanted.has("generate") && { generate: weightBytes(optNames(config), dtype) }),
  };
}

/**
 * Refuse what cannot fit before it is tried. WebGPU does not tell how much memory a GPU has; a software adapter has the
 * machine's.
 * @returns the plan's total
 */
function expectRoom(gpu: Gpu, { ref, dtype }: CheckpointCard, memory: MemoryPlan): number {
  const parts = Object.entries(memory);
  const total = parts.reduce((sum, [, bytes]) => sum + bytes, 0);
  const limit = constrainedMemory();
  // Without a limit Node reports none, or a number beyond every machine's memory.
  const room = limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  if (gpu.report.softwareAdapter && gpu.allocatedBytes + total > room) {
    throw new OutOfMemoryError(
      `${ref}: expected weights of at most ${room - gpu.allocatedBytes} bytes on ` +
        `${adapterLine(gpu.report)} (the machine has ${room}), got ${total} under --dtype ${dtype} (${parts.map(([part, bytes]) => `${part} ${bytes}`).join(", ")}); use fewer stages or a smaller model`,
    );
  }
  return total;
}
