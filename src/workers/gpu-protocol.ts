// What the main thread and the GPU thread say to each other.

import type { AdapterReport } from "../gpu/adapter.ts";
import type { WorkingBytes } from "../gpu/row-program.ts";
import type { Priority, ProgramStats } from "../gpu/scheduler.ts";
import type { VariantReport } from "../gpu/variants.ts";
import type { Stage } from "../messages/job.ts";
import type { Purpose } from "../models/families.ts";
import type { MemoryPlan } from "../models/memory-plan.ts";
import type { Cards, Programs } from "../models/model-card.ts";
import type { Dtype, RunSettings } from "../stages.ts";
import type { WeightsProgress } from "../weights/repository.ts";
import type { ErrorRecord } from "./thread-error.ts";

/** Which model, and which of its stages this process serves (all of them if left out). */
export interface ModelRequest<P extends Purpose = Purpose> {
  /** Hugging Face id, or a directory in Hugging Face layout. */
  readonly ref: string;
  readonly dtype: Dtype;
  readonly stages?: readonly Stage[];
  /** How it is run where that is a choice. Default: as the checkpoint is. */
  readonly settings?: RunSettings;
  /** What it is wanted for; a model of no use for that is refused. Default: to write texts. */
  readonly purpose?: P;
}

export interface GpuThreadOptions {
  /** Most bytes that a kernel binds of one tensor; see openGpu. */
  readonly bindingLimit?: number;
  /** Dawn's checks of every call; see openGpu. */
  readonly validation?: boolean;
  /** Where a passed self-test is remembered, and where `blipfleet tune` leaves its table. */
  readonly cacheFolder: string;
  /** Run the self-test although a pass is remembered. Default false. */
  readonly testAnyway?: boolean;
  /** URL of the module that has selfTest and loadModel; tests put their own here. */
  readonly models: string;
}

/** What the thread is started with: the options, and a cell that it sets to 1 once the device is closed. */
export interface GpuThreadData {
  readonly options: GpuThreadOptions;
  readonly closed: Int32Array;
}

/** The programs of a model by name. */
export type ProgramName = { [P in Purpose]: keyof Programs[P] }[Purpose];

export interface OpenedGpu {
  readonly report: AdapterReport;
  readonly selfTest: "passed" | "remembered";
  /** The kernels' variants as they are after the self-test. */
  readonly variants: VariantReport;
}

export interface ThreadModel {
  /** Number of the model in its thread. */
  readonly model: number;
  /** Of the purpose that was asked for. */
  readonly card: Cards[Purpose];
  /** The checkpoint's folder. */
  readonly folder: string;
  readonly programs: readonly ProgramName[];
  /** Bytes of weights by part. */
  readonly memory: MemoryPlan;
  /** What one row under way takes beside them, under default settings. */
  readonly rowBytes: WorkingBytes;
}

export interface GpuStats {
  /** By model, type and program, e.g. "Salesforce/blip2-opt-2.7b f16 encode". */
  readonly programs: Readonly<Record<string, ProgramStats>>;
  /** Rows that wait or are under way. */
  readonly load: number;
  readonly allocatedBytes: number;
}

export type ToGpuThread =
  | { readonly type: "load"; readonly id: number; readonly request: ModelRequest }
  | {
      readonly type: "row";
      readonly id: number;
      readonly model: number;
      readonly program: ProgramName;
      readonly input: unknown;
      readonly priority: Priority;
      /** Tell what there is so far of the result. */
      readonly partial: boolean;
    }
  | { readonly type: "abort"; readonly id: number }
  | { readonly type: "stats"; readonly id: number }
  | { readonly type: "close"; readonly how: "drain" | "reject" }
  /** The process ends at once: close the device now, whatever is under way. */
  | { readonly type: "exit" };

export type FromGpuThread =
  | ({ readonly type: "opened" } & OpenedGpu)
  /** One line for people, as about a variant of a kernel that is refused. */
  | { readonly type: "told"; readonly line: string }
  /** Of a model that is being loaded. */
  | { readonly type: "progress"; readonly id: number; readonly progress: WeightsProgress }
  /** Of a row that asked for it. */
  | { readonly type: "partial"; readonly id: number; readonly value: unknown }
  | { readonly type: "done"; readonly id: number; readonly value: unknown }
  | { readonly type: "failed"; readonly id: number; readonly error: ErrorRecord }
  /** Nothing will work in this process any more. */
  | { readonly type: "fatal"; readonly error: ErrorRecord };
