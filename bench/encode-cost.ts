// What the host pays for one dispatch: replayed from a recorded list, and encoded anew with a bind group of its own.

import type { BenchRow } from "../src/cli/bench.ts";
import { openGpu } from "../src/gpu/device.ts";
import { measureEncodeCost } from "../src/gpu/encode-cost.ts";
import { add } from "../src/kernels/add.ts";

/** Dispatches of one list, about as many as one decoding step of a large language model has. */
const dispatches = 300;
const rounds = 200;

export async function rows(): Promise<readonly BenchRow[]> {
  const gpu = await openGpu({ nap: true, validation: false });
  try {
    const x = gpu.alloc("x", [1, 64], "f32");
    const y = gpu.alloc("y", [1, 64], "f32");
    const list = await gpu.record("sums", (k) => {
      let sum = x;
      for (let i = 0; i < dispatches; i += 1) sum = add(k, sum, y);
      return sum;
    });
    const cost = await measureEncodeCost(gpu, list, rounds);
    list.destroy();
    const { replayed, fresh } = cost;
    return [{ name: "encode-cost-per-dispatch", ours: replayed, peer: fresh, unit: "µs", ratio: replayed / fresh }];
  } finally {
    gpu.close();
  }
}
