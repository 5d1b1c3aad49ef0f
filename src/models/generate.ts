// Generation: greedy and beam search as transformers 4.57.6 does them (generation/utils.py, _sample and _beam_search), by
// replaying a recorded step. Everything that a step needs and changes lives on the GPU; ids come back.

import type { Gpu } from "../gpu/device.ts";
import { bucket, RecordingCache, recordingKey } from "../gpu/recording-cache.ts";
import type { Batch, RowProgram } from "../gpu/row-program.ts";
import { type DecodeMachine, makeDecodeMachine } from "./decode-machine.ts";
import { defaultRow, defaultRowBytes } from "./default-row.ts";
import { GenerationError } from "./errors.ts";
import { generateBatch, type StepPlan } from "./generate-batch.ts";
import { bucketsOf, checkGenerateRow, type GenerateRow, generateKey, maxGenerateRows } from "./generate-row.ts";
import type { LanguageModel } from "./language-model.ts";

/**
 * How long a submit of several steps should take, and how many submits are under way at once. A row that ends early waits
 * for the rest of its submit and for all that was submitted behind it, and so does who takes its place. So a submit is no
 * longer than it must be for its own cost (0.8 ms on lavapipe) to be a small part of it, and well under the 250 ms that
 * other stages may have to wait. On a CPU driver the host has nothing to hide behind a second submit, which there only
 * postpones the end of rows (`npm run bench -- --only batching`); on a GPU it hides the reading of ids. The figures for GPUs
 * are a guess that no GPU has measured yet.
 */
const pace = {
  software: { submitMilliseconds: 20, inFlight: 1 },
  gpu: { submitMilliseconds: 10, inFlight: 2 },
} as const;
/** Steps of one submit at most, however quick they are. */
const mostSteps = 8;

/** One step until it is known how long it takes, then as many as fit. */
export function stepsWithin(submitMilliseconds: number): StepPlan {
  return (left, stepMilliseconds) => {
    if (stepMilliseconds === undefined) return 1;
    const fitting = Math.floor(submitMilliseconds / Math.max(stepMilliseconds, submitMilliseconds / mostSteps));
    return Math.min(left, Math.max(1, fitting));
  };
}

/** What generate does unless it is told otherwise. */
export function paceOf({
  softwareAdapter,
}: Pick<Gpu, "softwareAdapter">): Required<Pick<GenerateOptions, "steps" | "inFlight">> {
  const { submitMilliseconds, inFlight } = softwareAdapter ? pace.software : pace.gpu;
  return { steps: stepsWithin(submitMilliseconds), inFlight };
}

/** Machines kept, idle ones too; each holds the caches of a whole batch. */
const keptMachines = 4;

export interface GenerateOptions {
  /** Default: as many as take some milliseconds, by adapter. */
  readonly steps?: StepPlan;
  /** Floating-point operations that one submit may hold; default: by adapter. */
  readonly mostOperations?: number;
  /** Submits under way at once; default: by adapter. */
  readonly inFlight?: number;
}

/** The generate stage of one language model. Rows should have passed checkGenerateRow. */
export function generateProgram(
  gpu: Gpu,
  model: LanguageModel,
  options: GenerateOptions = {},
): RowProgram<GenerateRow, number[]> & { close(): void } {
  const machines = new RecordingCache<DecodeMachine>(keptMachines);
  return {
    name: "generate",
    maxRows: (key) => maxGenerateRows(gpu, model, key),
    key: generateKey,
    start: (rows) => startGenerate(gpu, model, rows, machines, options),
    working: () => defaultRowBytes(model),
    async prepare() {
      const row = defaultRow(model);
      const made = await machines.acquire(recordingKey(generateKey(row), { rows: 1 }), () =>
        makeDecodeMachine(gpu, model, 1, bucketsOf(row), options.mostOperations),
      );
      // What reads a prompt is recorded with the first one.
      await made.value.load([[0, row]]);
      made.release();
    },
    close: () => machines.destroy(),
  };
}

/**
 * Rows of one generateKey under way together; others of it may join.
 * @returns a batch whose rows end as new ids only, the final id that ends a sequence included.
 * @throws GenerationError if the model cannot serve a row.
 */
export function startGenerate(
  gpu: Gpu,
  model: LanguageModel,
  rows: readonly GenerateRow[],
  machines: RecordingCache<DecodeMachine>,
  options: GenerateOptions = {},
): Batch<number[], GenerateRow> {
  const { steps, mostOperations, inFlight } = { ...paceOf(gpu), ...options };
  const [head] = rows;
  if (head === undefined) throw new GenerationError("generate: expected rows of one key, got none");
  const key = generateKey(head);
  const check = (row: GenerateRow) => {
    checkGenerateRow(model, row);
    if (generateKey(row) === key) return;
    throw new GenerationError(`generate: expected rows of one key, ${key}, got ${generateKey(row)}`);
  };
  const machine = (count: number) => {
    const items = bucket(count);
    return machines.acquire(recordingKey(key, { rows: items }), () =>
      makeDecodeMachine(gpu, model, items, bucketsOf(head), mostOperations),
    );
  };
  const { vocabulary } = model;
  const mostRows = Math.max(bucket(rows.length), maxGenerateRows(gpu, model, key));
  return generateBatch(gpu, { vocabulary, mostRows, steps, inFlight, machine, check }, rows);
}
