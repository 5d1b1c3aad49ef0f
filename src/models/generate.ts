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

/** Milliseconds that a submit of several steps should take: well under the 250 that others may have to wait. */
const submitTarget = 150;
/** Steps of one submit at most; a row that ends early waits for the rest of its submit, and so does who takes its place. */
const mostSteps = 16;

/** One step until it is known how long it takes, then as many as fit the target. */
export const boundedSteps: StepPlan = (left, stepMilliseconds) => {
  if (stepMilliseconds === undefined) return 1;
  const fitting = Math.floor(submitTarget / Math.max(stepMilliseconds, submitTarget / mostSteps));
  return Math.min(left, Math.max(1, fitting));
};

/** Machines kept, idle ones too; each holds the caches of a whole batch. */
const keptMachines = 4;

export interface GenerateOptions {
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
  { steps = boundedSteps, mostOperations, inFlight = 1 }: GenerateOptions = {},
): Batch<number[], GenerateRow> {
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
