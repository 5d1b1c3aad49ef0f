// What `blipfleet tune` needs of an operation: which variants are worth trying, and a case to try them on.

import type { Gpu } from "../gpu/device.ts";
import type { Recorder } from "../gpu/recorder.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Operation, Variant } from "../gpu/variants.ts";

/** What decides which variants are worth trying. */
export interface Adapter {
  readonly softwareAdapter: boolean;
  /** Invocations that the adapter runs as one vector. */
  readonly lanes: number;
  /** Few candidates and small cases: for a first look. */
  readonly quick: boolean;
}

/** A case with its inputs on the GPU. */
export interface OpenTrial {
  /** Launches one run. */
  forward(k: Recorder): Tensor;
  /** Element `i` of the result in f64, and how far sums in f32 may be from it. */
  expected(i: number): { readonly value: number; readonly tolerance: number };
  close(): void;
}

/** A case of a class. */
export interface Trial {
  /** In a few words, for the table. */
  readonly measured: string;
  open(gpu: Gpu): Promise<OpenTrial>;
}

export interface TunedOperation<V extends Variant = Variant> extends Operation<V> {
  /** Classes of one group compile the same shader, if they have the same variant. Left out: all classes do. */
  group?(shapeClass: string): string;
  candidates(shapeClass: string, adapter: Adapter): readonly V[];
  trial(shapeClass: string, adapter: Adapter): Trial;
}
