// What the host pays per dispatch: replaying a frozen list against encoding it anew. For the bench.

import type { Gpu } from "./device.ts";
import { median } from "./median.ts";
import { encode, type Recording } from "./recording.ts";

export interface EncodeCost {
  /** µs of host time per dispatch, median over the rounds. */
  readonly replayed: number;
  /** The same with a new bind group for each dispatch, as runtimes without recording do. */
  readonly fresh: number;
  readonly dispatches: number;
}

/** Encode `list` both ways, interleaved, `rounds` times each; every command buffer is submitted and awaited. */
export async function measureEncodeCost(gpu: Gpu, list: Recording, rounds: number): Promise<EncodeCost> {
  const { device } = gpu;
  const replay = (pass: GPUComputePassEncoder) => encode(pass, list.dispatches);
  const fresh = (pass: GPUComputePassEncoder) => {
    list.dispatches.forEach(({ pipeline, x, y, z }, i) => {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, device.createBindGroup(list.descriptors[i] as GPUBindGroupDescriptor));
      pass.dispatchWorkgroups(x, y, z);
    });
  };
  const timed = async (write: (pass: GPUComputePassEncoder) => void): Promise<number> => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const start = performance.now();
    write(pass);
    const took = performance.now() - start;
    pass.end();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    return (took * 1000) / list.dispatches.length;
  };
  const samples = { replayed: [] as number[], fresh: [] as number[] };
  for (let round = -2; round < rounds; round++) {
    const replayed = await timed(replay);
    const anew = await timed(fresh);
    if (round < 0) continue;
    samples.replayed.push(replayed);
    samples.fresh.push(anew);
  }
  return { replayed: median(samples.replayed), fresh: median(samples.fresh), dispatches: list.dispatches.length };
}
