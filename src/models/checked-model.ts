// A checkpoint that was checked whole, and how its weights become programs.

import type { Gpu } from "../gpu/device.ts";
import type { RowProgram } from "../gpu/row-program.ts";
import type { WeightType } from "../kernels/weights.ts";
import type { Stage } from "../messages/job.ts";
import { activationType, type CheckpointCard, type Dtype, type ImageSettings } from "../stages.ts";
import { type Checkpoint, expectTensors, hasFile, readSettings } from "../weights/checkpoint.ts";
import { checkpointDigest } from "../weights/digest.ts";
import { CheckpointError } from "../weights/errors.ts";
import type { NameTable, NameTree } from "../weights/names/tensor-names.ts";
import { UnsupportedModelError } from "./errors.ts";
import type { Loaded, WeightLoader } from "./load.ts";
import { type ModelPlan, unloadedWeights, workingOf } from "./memory-plan.ts";
import { type ChangingVision, type CheckOptions, changedBy } from "./run-settings.ts";
import { expectBindable, weightBytes } from "./weight-sizes.ts";

/** Settings understood, every tensor there, of its shape and of a usable dtype. Nothing is uploaded. */
export interface CheckedModel<Card extends CheckpointCard, Programs> {
  readonly card: Card;
  /**
   * What these stages take on this device; those of all that the model has if left out. Nothing is allocated.
   * @throws KernelError for a weight that the device cannot bind
   */
  plan(gpu: Gpu, stages?: readonly Stage[]): ModelPlan;
  /** Upload the weights of these stages. @returns the programs that they can serve, and how to free their recordings */
  load(gpu: Gpu, loader: WeightLoader, stages?: readonly Stage[]): Promise<OpenedPrograms<Programs>>;
}

export interface OpenedPrograms<Programs> {
  readonly programs: Programs;
  close(): void;
}

/** The weights that each stage needs, in the order of the stages; parts are named as the programs want them. */
export type PartsByStage = { readonly [S in Stage]?: { readonly [part: string]: NameTree } };

type LoadedPart<P, S> = S extends keyof P ? Loaded<P[S]> : unknown;
/** The parts of all stages in one record; those of stages that are not wanted are missing. */
export type WeightsOf<P extends PartsByStage> = Partial<
  LoadedPart<P, "encode"> & LoadedPart<P, "query"> & LoadedPart<P, "generate">
>;

/**
 * The type of a stage's matrices, unless their names say what they keep. VisualGLM, as its own code has it, is quantized in its
 * language model only.
 */
function weightTypeOf({ family, dtype }: Pick<CheckpointCard, "family" | "dtype">, stage: Stage): WeightType {
  if (family === "visualglm" && stage !== "generate") return activationType(dtype);
  return dtype;
}

/** @param programsOf what weights can serve; see PartsByStage */
export function checkedModel<Card extends CheckpointCard, P extends PartsByStage, Programs>(
  card: Card,
  parts: P,
  programsOf: (gpu: Gpu, weights: WeightsOf<P>) => OpenedPrograms<Programs>,
): CheckedModel<Card, Programs> {
  const wanted = (stages?: readonly Stage[]) =>
    (Object.entries(parts) as [Stage, NameTree][]).filter(([stage]) => stages?.includes(stage) ?? true);
  return {
    card,
    plan(gpu, stages) {
      const trees = wanted(stages);
      const unloaded = {};
      for (const [stage, tree] of trees) {
        expectBindable(gpu, tree, weightTypeOf(card, stage));
        Object.assign(unloaded, unloadedWeights(tree));
      }
      const { programs, close } = programsOf(gpu, unloaded as WeightsOf<P>);
      const row = workingOf(programs as Readonly<Record<string, unknown>>);
      close();
      return {
        weights: Object.fromEntries(
          trees.map(([stage, tree]) => [stage, weightBytes(tree, weightTypeOf(card, stage))]),
        ),
        row,
      };
    },
    async load(gpu, loader, stages) {
      const weights = {};
      for (const [stage, tree] of wanted(stages))
        Object.assign(weights, loader.allocate(tree, weightTypeOf(card, stage)));
      const opened = programsOf(gpu, weights as WeightsOf<P>);
      // Both to their ends: nothing may be at work on buffers that are about to be freed.
      const [filled] = await Promise.allSettled([loader.fill(), prepare(opened.programs as NamedPrograms)]);
      if (filled.status === "fulfilled") return opened;
      opened.close();
      throw filled.reason;
    },
  };
}

type NamedPrograms = Readonly<Partial<Record<string, RowProgram<never, unknown>>>>;

/** What an image goes through first; the two of encodeAndQuery are asked for one by one by split jobs alone. */
const firstPrograms = { fused: ["encodeAndQuery", "generate"], other: ["encode", "queryImage", "generate"] } as const;

/**
 * Compile the kernels of the first rows while weights are on their way.
 * What cannot be recorded is told by the row that needs it, which may never come.
 */
async function prepare(programs: NamedPrograms): Promise<void> {
  const names = programs.encodeAndQuery ? firstPrograms.fused : firstPrograms.other;
  await Promise.allSettled(names.map((name) => programs[name]?.prepare?.()));
}

/** What a family says of its checkpoint, for the checks that are the same for all. */
export interface CheckpointFacts {
  readonly image: ImageSettings;
  /** Of this run. */
  readonly vision: ChangingVision & { readonly width: number };
  /** As the configuration has it. */
  readonly written: ChangingVision;
  /** Widths of what is handed over between stages, by the key that says them; f16 needs even ones. */
  readonly widths: Readonly<Record<string, number>>;
  readonly names: NameTable;
  /** The file of its tokenizer. Default tokenizer.json */
  readonly tokenizer?: string;
}

/**
 * The checks that all families share, and what a card says of every model.
 * @throws CheckpointError, WeightsError, UnsupportedModelError
 */
export async function checkCheckpoint(
  checkpoint: Checkpoint,
  dtype: Dtype,
  { image, vision, written, widths, names, tokenizer = "tokenizer.json" }: CheckpointFacts,
  options: CheckOptions,
): Promise<Omit<CheckpointCard, "family">> {
  const { ref } = checkpoint;
  const isJson = tokenizer.endsWith(".json");
  if (isJson ? (await readSettings(checkpoint, tokenizer)) === null : !(await hasFile(checkpoint, tokenizer))) {
    const kind = isJson ? "fast tokenizer" : "SentencePiece model";
    throw new CheckpointError(`${ref}: expected ${tokenizer}, got no such file; save the model's ${kind} there`);
  }
  for (const [key, width] of Object.entries({ "vision_config.hidden_size": vision.width, ...widths })) {
    if (activationType(dtype) !== "f16" || width % 2 === 0) continue;
    throw new UnsupportedModelError(
      `${ref}: ${key}: expected an even number under --dtype ${dtype}, got ${width}; use --dtype f32`,
    );
  }
  expectTensors(checkpoint, names);
  const tokens = Math.floor(vision.imageSize / vision.patchSize) ** 2 + 1;
  const digest = options.digest ?? (await checkpointDigest(checkpoint, options));
  return {
    ref,
    digest,
    dtype,
    image,
    features: [tokens, vision.width],
    ...changedBy(vision, written, options.settings),
  };
}
