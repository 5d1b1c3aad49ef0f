// Generation: greedy and beam search as transformers 4.57.6 does them (generation/utils.py, _sample and _beam_search), by
// replaying a recorded step. Everything that a step needs and changes lives on the GPU; ids come back.

import type { Gpu } from "../gpu/device.ts";
import type { Recording } from "../gpu/recording.ts";
import { bucket, type Lease, RecordingCache, recordingKey } from "../gpu/recording-cache.ts";
import type { Batch, RowProgram, RowResult } from "../gpu/row-program.ts";
import { endedHead } from "../kernels/decode-state.ts";
import { type DecodeMachine, makeDecodeMachine } from "./decode-machine.ts";
import { defaultBuckets, defaultRowBytes } from "./default-row.ts";
import { GenerationError } from "./errors.ts";
import {
  bucketsOf,
  checkGenerateRow,
  type GenerateRow,
  generateKey,
  keyOfBuckets,
  maxGenerateRows,
} from "./generate-row.ts";
import type { LanguageModel } from "./language-model.ts";

/** Milliseconds that a submit of several steps should take: well under the 250 that others may have to wait. */
const submitTarget = 150;
/** Steps of one submit at most; a row that ends early waits for the rest of its submit. */
const mostSteps = 16;

/** Steps of the next submit, given how many are left at most and what the last step took (undefined: not known). */
export type StepPlan = (left: number, stepMilliseconds: number | undefined) => number;

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
      const buckets = defaultBuckets(model);
      const key = recordingKey(keyOfBuckets(buckets), { rows: 1 });
      const made = await machines.acquire(key, () => makeDecodeMachine(gpu, model, 1, buckets, options.mostOperations));
      made.release();
    },
    close: () => machines.destroy(),
  };
}

/**
 * Rows of one generateKey under way together.
 * @returns a batch whose rows end as new ids only, the final id that ends a sequence included.
 * @throws GenerationError if the model cannot serve a row.
 */
export function startGenerate(
  gpu: Gpu,
  model: LanguageModel,
  rows: readonly GenerateRow[],
  machines: RecordingCache<DecodeMachine>,
  { steps = boundedSteps, mostOperations }: GenerateOptions = {},
): Batch<number[]> {
  for (const row of rows) checkGenerateRow(model, row);
  const [head] = rows;
  if (head === undefined || rows.some((row) => generateKey(row) !== generateKey(head))) {
    throw new GenerationError(`generate: expected rows of one key, got ${rows.map(generateKey).join("; ") || "none"}`);
  }
  const open = new Set(rows.keys());
  let lease: Lease<DecodeMachine> | undefined;
  /** What is left of a prompt or a step that takes several submits. */
  let pending: Recording[] = [];
  let generated = 0;
  let stepMilliseconds: number | undefined;

  const begin = async (): Promise<Lease<DecodeMachine>> => {
    const items = bucket(rows.length);
    const key = recordingKey(generateKey(head), { rows: items });
    const made = await machines.acquire(key, () =>
      makeDecodeMachine(gpu, model, items, bucketsOf(head), mostOperations),
    );
    lease = made;
    await made.value.load(rows);
    pending = [...made.value.first];
    generated = 1;
    return made;
  };

  return {
    async step(dropped, onPartial) {
      for (const row of dropped) open.delete(row);
      if (open.size === 0) return [];
      const { value: machine } = lease ?? (await begin());
      if (pending.length === 0 && machine.next.length > 1) {
        pending = [...machine.next];
        generated++;
      }
      const [list] = pending.splice(0, 1);
      if (list !== undefined && pending.length > 0) {
        await gpu.submit([list]);
        return [];
      }
      if (list !== undefined) return finished(model, open, machine, await replay(gpu, machine, [list]), onPartial);
      const left = Math.max(...[...open].map((row) => rows[row]?.generation.maxNewTokens ?? 0)) - generated;
      const count = steps(left, stepMilliseconds);
      const started = performance.now();
      const results = await replay(gpu, machine, new Array(count).fill(machine.next[0]));
      stepMilliseconds = (performance.now() - started) / count;
      generated += count;
      return finished(model, open, machine, results, onPartial);
    },
    release: () => lease?.release(),
  };
}

interface StepResults {
  readonly progress: Uint32Array;
  readonly ended: Uint32Array;
}

async function replay(gpu: Gpu, { state }: DecodeMachine, lists: readonly Recording[]): Promise<StepResults> {
  const [progress, ended] = await gpu.submit(lists, { reads: [state.progress, state.ended] });
  return { progress: new Uint32Array(progress as ArrayBuffer), ended: new Uint32Array(ended as ArrayBuffer) };
}

/** Take the rows out of `open` that are done; tell of the others what they have, unless beams still compete. */
function finished(
  model: LanguageModel,
  open: Set<number>,
  { state }: DecodeMachine,
  { progress, ended }: StepResults,
  onPartial: (row: number, ids: number[]) => void = () => {},
): RowResult<number[]>[] {
  const results: RowResult<number[]>[] = [];
  for (const row of open) {
    const isDone = progress[row * (2 + state.beams) + 1] !== 0;
    if (!isDone && state.beams > 1) continue;
    const record = row * state.beams * (endedHead + state.newRows);
    const ids = [...ended.subarray(record + endedHead, record + endedHead + (ended[record + 2] ?? 0))];
    if (!isDone) {
      onPartial(row, ids);
      continue;
    }
    open.delete(row);
    if (ended[record] !== 1 || ids.some((id) => id >= model.vocabulary)) {
      const error = new GenerationError(
        "generate: expected logits that are numbers, got NaN; the weights may be broken",
      );
      results.push({ row, error });
    } else {
      results.push({ row, value: ids });
    }
  }
  return results;
}
