// Kernels come in a family for CPU drivers and one for GPUs, and some in several variants; tests run them all on whatever
// adapter there is.

import type { Recorder } from "../../src/gpu/recorder.ts";
import { fallbackTable } from "../../src/gpu/tuning-table.ts";
import { type Operation, type Variant, Variants } from "../../src/gpu/variants.ts";

export const families = [
  { softwareAdapter: true, family: "CPU variant" },
  { softwareAdapter: false, family: "GPU variant" },
] as const;

/** A variant that is refused fails the test: the next one is not what is tested. */
export function refuseNothing(line: string): void {
  throw new Error(line);
}

function using(k: Recorder, softwareAdapter: boolean, variants: Variants): Recorder {
  return { softwareAdapter, variants, scratch: k.scratch.bind(k), launch: k.launch.bind(k) };
}

/** The same recorder, asking for the other or the same family. */
export function asFamily(k: Recorder, softwareAdapter: boolean): Recorder {
  return using(k, softwareAdapter, new Variants([fallbackTable(softwareAdapter)], k.variants.report, refuseNothing));
}

/** The same recorder, with this variant of an operation for shapes of all classes. */
export function asVariant<V extends Variant>(k: Recorder, operation: Operation<V>, variant: V): Recorder {
  return using(k, k.softwareAdapter, k.variants.with(operation, variant, refuseNothing));
}
