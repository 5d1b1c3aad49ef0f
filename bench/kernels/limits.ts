// What this adapter does at most, measured by two small shaders on the same driver: the roof that kernels are held against.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Gpu } from "../../src/gpu/device.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { overTwo } from "../../src/kernels/workgroups.ts";

export interface MachineLimits {
  /** Of f32, two for each fused multiply-add. */
  readonly flopsPerSecond: number;
  /** Read and written together, in a copy between buffers too large for caches. */
  readonly bytesPerSecond: number;
}

/** What a kernel does at least. */
export interface Work {
  readonly flops: number;
  /** Inputs, weights and results, each once. */
  readonly bytes: number;
}

/** Chains of one invocation in fma-rate.wgsl. */
const chains = 24;
const rounds = 7;

/** Milliseconds that the work takes at the limits. */
export function leastMilliseconds({ flops, bytes }: Work, limits: MachineLimits): number {
  return 1000 * Math.max(flops / limits.flopsPerSecond, bytes / limits.bytesPerSecond);
}

/** The best of a few rounds each: what disturbs them only makes them slower. */
export async function measureLimits(gpu: Gpu): Promise<MachineLimits> {
  const software = gpu.report.softwareAdapter;
  const fma = software
    ? { workgroup: 8, invocations: 512, turns: 20_000 }
    : { workgroup: 64, invocations: 1 << 20, turns: 2_000 };
  const bytes = Math.min(software ? 64 * 2 ** 20 : 2 ** 30, gpu.bindingLimit);
  return {
    flopsPerSecond: (2 * chains * fma.invocations * fma.turns) / (await fmaSeconds(gpu, fma)),
    bytesPerSecond: (2 * bytes) / (await copySeconds(gpu, bytes)),
  };
}

interface FmaSize {
  readonly workgroup: number;
  readonly invocations: number;
  readonly turns: number;
}

async function fmaSeconds(gpu: Gpu, { workgroup, invocations, turns }: FmaSize): Promise<number> {
  const { device } = gpu;
  const params = gpu.createBuffer("params", 16, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  const sums = gpu.createBuffer("sums", invocations * 4, GPUBufferUsage.STORAGE);
  // Chains that neither grow nor fade.
  const values = new Float32Array([0, 0.5, 1, 0]);
  new Uint32Array(values.buffer)[0] = turns;
  device.queue.writeBuffer(params, 0, values);
  const run = await prepared(gpu, "fma-rate", { WORKGROUP: workgroup }, [params, sums], [invocations / workgroup]);
  const best = await fastest(run);
  for (const buffer of [params, sums]) gpu.destroyBuffer(buffer);
  return best;
}

async function copySeconds(gpu: Gpu, bytes: number): Promise<number> {
  const workgroup = 64;
  const [source, copy] = ["source", "copy"].map((name) => gpu.createBuffer(name, bytes, GPUBufferUsage.STORAGE));
  const buffers = [source as GPUBuffer, copy as GPUBuffer];
  const groups = overTwo(Math.ceil(bytes / 16 / workgroup));
  const run = await prepared(gpu, "copy-rate", { WORKGROUP: workgroup }, buffers, groups);
  const best = await fastest(run);
  for (const buffer of buffers) gpu.destroyBuffer(buffer);
  return best;
}

/** @returns one dispatch of a shader of this folder, awaited */
async function prepared(
  gpu: Gpu,
  shader: string,
  constants: Record<string, number>,
  buffers: readonly GPUBuffer[],
  groups: readonly number[],
): Promise<() => Promise<void>> {
  const { device } = gpu;
  const code = await readFile(join(packageRoot, "bench", "kernels", `${shader}.wgsl`), "utf8");
  const module = device.createShaderModule({ code, label: shader });
  const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module, constants } });
  const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
  const bindGroup = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  return async () => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(groups[0] ?? 1, groups[1] ?? 1);
    pass.end();
    device.queue.submit([encoder.finish()]);
    await gpu.submit([]);
  };
}

async function fastest(run: () => Promise<void>): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    const started = performance.now();
    await run();
    best = Math.min(best, performance.now() - started);
  }
  return best / 1000;
}
