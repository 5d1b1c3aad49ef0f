// A stage without state as a row program: upload the rows, replay one forward pass in bounded submits, read one result
// per row back.

import type { Gpu } from "../gpu/device.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Recording } from "../gpu/recording.ts";
import { bucket, type Lease, RecordingCache, recordingKey } from "../gpu/recording-cache.ts";
import type { Batch, RowProgram, WorkingBytes } from "../gpu/row-program.ts";
import { byteLength, type ElementType, type Tensor } from "../gpu/tensor.ts";

/** A part of a forward pass. What one part returns is what the next one gets; the first gets the uploaded rows. */
export interface Part {
  /** Floating-point operations for one row, about. */
  readonly cost: number;
  run(k: Recorder, x: readonly Tensor[], batch: number): readonly Tensor[];
}

/** A block of a row's own, in or out of a stage. */
export interface Block {
  readonly shape: readonly number[];
  readonly type: ElementType;
}

/** One stage: rows of `In`, each one block for each of `inputs`, to one result per row. */
export interface StagePlan<In, Out> {
  readonly name: string;
  /** The first part gets a tensor for each: (rows * shape[0], ...), rows one after another. */
  readonly inputs: readonly Block[];
  /** The bytes of each input. @throws ShapeError when the row is not of the inputs' shapes */
  bytesOf(row: In): readonly Uint8Array[];
  readonly parts: readonly Part[];
  /** The first tensor that the last part returns, (rows * shape[0], ...). */
  readonly output: Block;
  /** @param bytes of a row's own block; they belong to the result */
  resultOf(bytes: Uint8Array): Out;
  /** f32 values of the widest activation inside, for one row. */
  readonly widest: number;
}

/**
 * Operations of one submit. Software drivers do 20 to 50 GFLOP/s on two cores, so that this is a quarter of a second at
 * worst; the slowest GPUs in use do more than 4 TFLOP/s.
 */
const submitCost = { software: 5e9, gpu: 1e12 } as const;
/** The shortest bucket of text lengths; a caption has ten to twenty ids. */
const leastTextRows = 8;
/** Rows of one batch; more does not make a row cheaper. */
const mostRows = { software: 8, gpu: 16 } as const;
/** Activations as large as the widest one that a pass has at a time, about. */
const aliveAtOnce = 4;
/** Batch sizes, and lengths of text, whose recordings and activations are kept. */
const keptRecordings = { plain: 6, withText: 12 } as const;

/** One batch size, recorded. */
interface StagedPass {
  readonly inputs: readonly Tensor[];
  readonly lists: readonly Recording<readonly Tensor[]>[];
  destroy(): void;
}

export type StagedProgram<In, Out> = RowProgram<In, Out> & { close(): void };

export function stagedProgram<In, Out>(gpu: Gpu, plan: StagePlan<In, Out>): StagedProgram<In, Out> {
  const passes = new RecordingCache<StagedPass>(keptRecordings.plain);
  const rowsAtMost = maxRows(gpu, plan);
  return {
    name: plan.name,
    maxRows: () => rowsAtMost,
    key: () => plan.name,
    start: (rows) => startBatch(gpu, plan, recordingKey(plan.name, { rows: bucket(rows.length) }), rows, passes),
    working: () => workingBytes(plan),
    async prepare() {
      const key = recordingKey(plan.name, { rows: 1 });
      const made = await passes.acquire(key, () => recordPass(gpu, plan, 1));
      made.release();
    },
    close: () => passes.destroy(),
  };
}

/** The widest activation, and those beside it that are alive at the same time. */
function workingBytes({ inputs, output, widest }: StagePlan<never, unknown>): WorkingBytes {
  const own = [...inputs, output].reduce((sum, { shape, type }) => sum + byteLength(shape, type), 0);
  return { caches: 0, scratch: own + aliveAtOnce * byteLength([widest], "f32") };
}

/**
 * The same for rows with a text: a plan for each bucket of text lengths, and only rows of one bucket share a batch, so
 * that a row is computed alike whatever it is batched with.
 * @param lengthOf ids of a row's text, checked. @throws what keeps the row from being computed
 */
export function textProgram<In, Out>(
  gpu: Gpu,
  name: string,
  lengthOf: (row: In) => number,
  planFor: (textRows: number) => StagePlan<In, Out>,
): StagedProgram<In, Out> {
  const passes = new RecordingCache<StagedPass>(keptRecordings.withText);
  const plans = new Map<number, StagePlan<In, Out>>();
  const planOf = (textRows: number): StagePlan<In, Out> => {
    const plan = plans.get(textRows) ?? planFor(textRows);
    plans.set(textRows, plan);
    return plan;
  };
  const textRowsOf = (row: In) => bucket(lengthOf(row), leastTextRows);
  return {
    name,
    maxRows: (key) => maxRows(gpu, planOf(Number(key))),
    key: (row) => `${textRowsOf(row)}`,
    start(rows) {
      const text = Math.max(...rows.map(textRowsOf));
      return startBatch(gpu, planOf(text), recordingKey(name, { rows: bucket(rows.length), text }), rows, passes);
    },
    close: () => passes.destroy(),
  };
}

/** Floating-point operations, about, that one submit should hold. */
export function operationsPerSubmit(gpu: Gpu): number {
  return gpu.softwareAdapter ? submitCost.software : submitCost.gpu;
}

/** Most rows, a power of two, whose tensors each fit a binding and whose costliest part fits a submit; at least 1. */
function maxRows(gpu: Gpu, { parts, inputs, output, widest }: StagePlan<never, unknown>): number {
  const costliest = Math.max(...parts.map(({ cost }) => cost));
  const blocks = [...inputs, output].map(({ shape, type }) => byteLength(shape, type));
  const largest = Math.max(byteLength([widest], "f32"), ...blocks);
  let rows: number = gpu.softwareAdapter ? mostRows.software : mostRows.gpu;
  while (rows > 1 && (rows * costliest > operationsPerSubmit(gpu) || rows * largest > gpu.bindingLimit)) rows /= 2;
  return rows;
}

function startBatch<In, Out>(
  gpu: Gpu,
  plan: StagePlan<In, Out>,
  key: string,
  rows: readonly In[],
  passes: RecordingCache<StagedPass>,
): Batch<Out, In> {
  const given = rows.map((row) => plan.bytesOf(row));
  const open = new Set(rows.keys());
  let lease: Lease<StagedPass> | undefined;
  let done = 0;
  return {
    async step(dropped) {
      for (const row of dropped) open.delete(row);
      if (open.size === 0) return [];
      if (lease === undefined) {
        lease = await passes.acquire(key, () => recordPass(gpu, plan, bucket(rows.length)));
        for (const [at, input] of lease.value.inputs.entries()) {
          for (const [row, blocks] of given.entries()) {
            const bytes = blocks[at] as Uint8Array;
            await gpu.upload(input, bytes, row * bytes.length);
          }
        }
      }
      const { lists } = lease.value;
      const list = lists[done++] as Recording<readonly Tensor[]>;
      if (done < lists.length) {
        await gpu.submit([list]);
        return [];
      }
      const [bytes] = await gpu.submit([list], { reads: list.result.slice(0, 1) });
      const rowBytes = byteLength(plan.output.shape, plan.output.type);
      return [...open].map((row) => {
        const own = new Uint8Array((bytes as ArrayBuffer).slice(row * rowBytes, (row + 1) * rowBytes));
        return { row, value: plan.resultOf(own) };
      });
    },
    release() {
      lease?.release();
    },
  };
}

/** Record all parts for `batch` rows, as few submits as their cost allows. */
async function recordPass(gpu: Gpu, plan: StagePlan<never, unknown>, batch: number): Promise<StagedPass> {
  const inputs = plan.inputs.map(({ shape: [rows = 1, ...rest], type }) =>
    gpu.alloc(`${plan.name} input`, [batch * rows, ...rest], type),
  );
  const lists: Recording<readonly Tensor[]>[] = [];
  const destroy = () => {
    for (const list of lists) list.destroy();
    for (const input of inputs) gpu.free(input);
  };
  try {
    let x: readonly Tensor[] = inputs;
    for (const parts of submits(plan.parts, batch, operationsPerSubmit(gpu))) {
      const given = x;
      const list = await gpu.record(`${plan.name} of ${batch}`, (k) =>
        parts.reduce((tensors, part) => part.run(k, tensors, batch), given),
      );
      lists.push(list);
      x = list.result;
    }
    return { inputs, lists, destroy };
  } catch (error) {
    destroy();
    throw error;
  }
}

/** Neighbouring parts together as long as they cost no more than `most`. */
export function submits<P extends { readonly cost: number }>(parts: readonly P[], batch: number, most: number): P[][] {
  const groups: P[][] = [];
  let sum = Number.POSITIVE_INFINITY;
  for (const part of parts) {
    sum += part.cost * batch;
    if (sum > most) {
      groups.push([part]);
      sum = part.cost * batch;
    } else {
      groups.at(-1)?.push(part);
    }
  }
  return groups;
}
