// A stage without state as a row program: upload the rows, replay one forward pass in bounded submits, read one
// activation per row back.

import type { Gpu } from "../gpu/device.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Recording } from "../gpu/recording.ts";
import { bucket, type Lease, RecordingCache, recordingKey } from "../gpu/recording-cache.ts";
import type { Batch, RowProgram } from "../gpu/row-program.ts";
import { byteLength, type ElementType, type Tensor } from "../gpu/tensor.ts";
import type { Activation, ActivationType } from "../stages.ts";

/** A part of a forward pass. What one part returns is what the next one gets; the first gets the uploaded rows. */
export interface Part {
  /** Floating-point operations for one row, about. */
  readonly cost: number;
  run(k: Recorder, x: readonly Tensor[], batch: number): readonly Tensor[];
}

/** One stage: rows of `In`, each one block of `input`, to one activation per row. */
export interface StagePlan<In> {
  readonly name: string;
  /** Shape of one row; rows lie one after another. */
  readonly input: { readonly shape: readonly number[]; readonly type: ElementType };
  /** @throws ShapeError when the row is not of the input's shape */
  bytesOf(row: In): Uint8Array;
  readonly parts: readonly Part[];
  /** The last part returns one tensor, (rows * shape[0], shape[1]) of this type. */
  readonly output: {
    readonly kind: Activation["kind"];
    readonly type: ActivationType;
    readonly shape: readonly [number, number];
  };
  /** f32 values of the widest activation inside, for one row. */
  readonly widest: number;
}

/**
 * Operations of one submit. Software drivers do 20 to 50 GFLOP/s on two cores, so that this is a quarter of a second at
 * worst; the slowest GPUs in use do more than 4 TFLOP/s.
 */
const submitCost = { software: 5e9, gpu: 1e12 } as const;
/** Rows of one batch; more does not make a row cheaper. */
const mostRows = { software: 8, gpu: 16 } as const;
/** Batch sizes whose recordings and activations are kept. */
const keptRecordings = 6;

/** One batch size, recorded. */
interface StagedPass {
  readonly input: Tensor;
  readonly lists: readonly Recording<readonly Tensor[]>[];
  destroy(): void;
}

export function stagedProgram<In>(gpu: Gpu, plan: StagePlan<In>): RowProgram<In, Activation> & { close(): void } {
  const passes = new RecordingCache<StagedPass>(keptRecordings);
  const rowsAtMost = maxRows(gpu, plan);
  return {
    name: plan.name,
    maxRows: () => rowsAtMost,
    key: () => plan.name,
    start: (rows) => startBatch(gpu, plan, rows, passes),
    close: () => passes.destroy(),
  };
}

/** Floating-point operations, about, that one submit should hold. */
export function operationsPerSubmit(gpu: Gpu): number {
  return gpu.softwareAdapter ? submitCost.software : submitCost.gpu;
}

/** Most rows, a power of two, whose activations fit a binding and whose costliest part fits a submit; at least 1. */
function maxRows(gpu: Gpu, plan: StagePlan<never>): number {
  const costliest = Math.max(...plan.parts.map(({ cost }) => cost));
  let rows: number = gpu.softwareAdapter ? mostRows.software : mostRows.gpu;
  while (rows > 1 && (rows * costliest > operationsPerSubmit(gpu) || rows * plan.widest * 4 > gpu.bindingLimit))
    rows /= 2;
  return rows;
}

function startBatch<In>(
  gpu: Gpu,
  plan: StagePlan<In>,
  rows: readonly In[],
  passes: RecordingCache<StagedPass>,
): Batch<Activation> {
  const inputs = rows.map((row) => plan.bytesOf(row));
  const open = new Set(rows.keys());
  let lease: Lease<StagedPass> | undefined;
  let done = 0;
  return {
    async step(dropped) {
      for (const row of dropped) open.delete(row);
      if (open.size === 0) return [];
      if (lease === undefined) {
        const size = bucket(rows.length);
        lease = await passes.acquire(recordingKey(plan.name, { rows: size }), () => recordPass(gpu, plan, size));
        const rowBytes = byteLength(plan.input.shape, plan.input.type);
        for (const [i, bytes] of inputs.entries()) await gpu.upload(lease.value.input, bytes, i * rowBytes);
      }
      const { lists } = lease.value;
      const list = lists[done++] as Recording<readonly Tensor[]>;
      if (done < lists.length) {
        await gpu.submit([list]);
        return [];
      }
      const [bytes] = await gpu.submit([list], { reads: list.result.slice(0, 1) });
      const { kind, type, shape } = plan.output;
      const rowBytes = byteLength(shape, type);
      return [...open].map((row) => {
        const own = new Uint8Array((bytes as ArrayBuffer).slice(row * rowBytes, (row + 1) * rowBytes));
        return { row, value: { kind, type, shape, bytes: own } };
      });
    },
    release() {
      lease?.release();
    },
  };
}

/** Record all parts for `batch` rows, as few submits as their cost allows. */
async function recordPass<In>(gpu: Gpu, plan: StagePlan<In>, batch: number): Promise<StagedPass> {
  const [rows = 1, ...rest] = plan.input.shape;
  const input = gpu.alloc(`${plan.name} input`, [batch * rows, ...rest], plan.input.type);
  const lists: Recording<readonly Tensor[]>[] = [];
  const destroy = () => {
    for (const list of lists) list.destroy();
    gpu.free(input);
  };
  try {
    let x: readonly Tensor[] = [input];
    for (const parts of submits(plan.parts, batch, operationsPerSubmit(gpu))) {
      const given = x;
      const list = await gpu.record(`${plan.name} of ${batch}`, (k) =>
        parts.reduce((tensors, part) => part.run(k, tensors, batch), given),
      );
      lists.push(list);
      x = list.result;
    }
    return { input, lists, destroy };
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
