// Record a forward pass once, replay it as a loop over a frozen list.
//
// Usage, from open to close:
//
//     const gpu = await openGpu();
//
//     // Persistent tensors: weights, inputs, state. Zeroed when allocated.
//     const image = gpu.alloc("image", [3, 224, 224], "f32");
//     await gpu.upload(image, bytes);
//
//     // The forward pass is a plain function over tensors. It runs once, here, and launches nothing yet.
//     const list = await gpu.record("encode", (k) => {
//       const patches = embedPatches(k, weights, image);   // a kernel: k.scratch(...) for its result, k.launch(...)
//       return layerNorm(k, patches, weights.norm);        // whatever is returned stays alive after a replay
//     });
//
//     // One submit replays lists in order, then reads tensors back.
//     const [features] = await gpu.submit([list], { reads: [list.result] });
//
//     // State kernels advance positions on the GPU, so k steps are the same list k times in one submit.
//     await gpu.submit([step, step, step, step], { reads: [tokens] });
//
//     list.destroy();
//     gpu.close();
//
// A kernel is a function that checks shapes, asks for scratch and launches:
//
//     const y = k.scratch("y", [rows, width]);
//     k.launch("layer-norm", { inputs: { x, gain, bias }, outputs: { y }, params: { width, eps }, workgroups: [rows] });
//     return y;
//
// Rules: a scratch tensor is written before it is read; one launch does not read and write the same buffer (a
// `read_write` variable updates in place); tensors in the result are exclusive to the recording, all other scratch is
// shared, within the recording and with other recordings, so it holds nothing between replays.
// Params and constants are frozen: what changes between replays lies in a tensor.

import { KernelError } from "./errors.ts";
import type { Kernel, Pipelines } from "./pipelines.ts";
import type { Launch, Recorder } from "./recorder.ts";
import type { ScratchPool, ScratchShare } from "./scratch-pool.ts";
import { checkNames, packParams, specialise } from "./shader.ts";
import { byteLength, type ElementType, type Tensor } from "./tensor.ts";
import type { Choice, Variants } from "./variants.ts";
import { originOf } from "./view.ts";

/** What a recording needs of the device. */
export interface RecordingDevice {
  readonly device: GPUDevice;
  readonly softwareAdapter: boolean;
  readonly pipelines: Pipelines;
  readonly variants: Variants;
  readonly pool: ScratchPool;
  readonly bindingLimit: number;
  createBuffer(name: string, bytes: number, usage: GPUBufferUsageFlags): GPUBuffer;
  destroyBuffer(buffer: GPUBuffer): void;
}

export interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly x: number;
  readonly y: number;
  readonly z: number;
}

/** A frozen list of dispatches. */
export interface Recording<T = unknown> {
  readonly name: string;
  readonly result: T;
  readonly dispatches: readonly Dispatch[];
  /** What each bind group was made from, in dispatch order; only the encode-cost bench makes them again. */
  readonly descriptors: readonly GPUBindGroupDescriptor[];
  /** Free its scratch, result and parameters; it must not be submitted again. */
  destroy(): void;
}

/** A tensor that says itself how many bytes to bind; tests bind guard bands together with a tensor. */
export interface BoundBytes {
  readonly boundBytes?: number;
}

class Scratch implements Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: ElementType;
  readonly byteOffset = 0;
  readonly recorder: object;
  storage: GPUBuffer | undefined = undefined;
  first = -1;
  last = -1;

  constructor(recorder: object, name: string, shape: readonly number[], type: ElementType) {
    this.recorder = recorder;
    this.name = name;
    this.shape = shape;
    this.type = type;
  }
}

interface RecordedLaunch {
  readonly shader: string;
  readonly launch: Launch;
  readonly params: Uint8Array | undefined;
}

class ListRecorder implements Recorder {
  readonly softwareAdapter: boolean;
  readonly variants: Variants;
  readonly launches: RecordedLaunch[] = [];
  readonly #host: RecordingDevice;
  readonly #name: string;
  finished = false;

  constructor(host: RecordingDevice, name: string) {
    this.#host = host;
    this.#name = name;
    this.softwareAdapter = host.softwareAdapter;
    this.variants = host.variants;
  }

  scratch(name: string, shape: readonly number[], type: ElementType = "f32"): Tensor {
    const bytes = byteLength(shape, type);
    if (!Number.isInteger(bytes) || bytes <= 0) {
      throw new KernelError(`${this.#name}: expected scratch ${name} to have elements, got (${shape.join(", ")})`);
    }
    return new Scratch(this, name, [...shape], type);
  }

  launch(shader: string, launch: Launch): void {
    const where = `${this.#name}: shaders/${shader}.wgsl`;
    if (this.finished) throw new KernelError(`${where}: expected launches while recording, got one afterwards`);
    const declared = this.#host.pipelines.declared(shader);
    const names = (kind: string) => declared.bindings.filter((each) => each.kind === kind).map((each) => each.name);
    checkNames(where, "inputs", names("input"), Object.keys(launch.inputs));
    checkNames(where, "outputs", names("output"), Object.keys(launch.outputs));
    const fields = declared.params.map((field) => field.name);
    checkNames(where, "params", fields, Object.keys(launch.params ?? {}));
    specialise(declared, launch.constants ?? {});
    const limit = this.#host.device.limits.maxComputeWorkgroupsPerDimension;
    if (
      !launch.workgroups.every(
        (count) => count === undefined || (Number.isInteger(count) && count > 0 && count <= limit),
      )
    ) {
      throw new KernelError(
        `${where}: expected workgroup counts of 1 to ${limit}, got ${launch.workgroups.join(" x ")}`,
      );
    }
    this.#checkTensors(where, launch);
    const params = fields.length > 0 ? packParams(declared, launch.params ?? {}) : undefined;
    this.launches.push({ shader, launch, params });
  }

  #checkTensors(where: string, launch: Launch): void {
    const index = this.launches.length;
    const written = new Map<Tensor | GPUBuffer, string>();
    const identity = (tensor: Tensor) => originOf(tensor).storage ?? originOf(tensor);
    for (const [name, tensor] of Object.entries(launch.outputs)) {
      const other = written.get(identity(tensor));
      if (other !== undefined) {
        throw new KernelError(
          `${where}: expected outputs in different buffers, got ${other} and ${name} in ${tensor.name}`,
        );
      }
      written.set(identity(tensor), name);
    }
    for (const [name, tensor] of Object.entries(launch.inputs)) {
      const output = written.get(identity(tensor));
      if (output !== undefined) {
        throw new KernelError(
          `${where}: expected inputs and outputs in different buffers, got input ${name} and output ${output} in ${tensor.name}`,
        );
      }
    }
    const check = (name: string, tensor: Tensor, writes: boolean) => {
      const bytes = byteLength(tensor.shape, tensor.type);
      if (bytes > this.#host.bindingLimit) {
        throw new KernelError(
          `${where}: expected ${name} to fit a binding of ${this.#host.bindingLimit} bytes, got ${tensor.name} ` +
            `(${tensor.shape.join(", ")}) of ${bytes}; split it`,
        );
      }
      const origin = originOf(tensor);
      if (!(origin instanceof Scratch)) {
        if (origin.storage === undefined)
          throw new KernelError(`${where}: expected ${name} to have a buffer, got none`);
        return;
      }
      if (origin.recorder !== this) {
        if (origin.storage) return;
        throw new KernelError(`${where}: expected scratch of this recording as ${name}, got ${tensor.name} of another`);
      }
      if (origin.first < 0) {
        if (!writes) {
          throw new KernelError(
            `${where}: expected ${name} to be written before it is read, got new scratch ${tensor.name}`,
          );
        }
        origin.first = index;
      }
      origin.last = index;
    };
    for (const [name, tensor] of Object.entries(launch.inputs)) check(name, tensor, false);
    for (const [name, tensor] of Object.entries(launch.outputs)) check(name, tensor, true);
  }
}

/** Every scratch tensor reachable from what the forward function returned. */
function scratchIn(value: unknown, found = new Set<Scratch>(), seen = new Set<unknown>()): Set<Scratch> {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || seen.has(value)) return found;
  seen.add(value);
  if ("storage" in value && "byteOffset" in value) {
    const origin = originOf(value as Tensor);
    if (origin instanceof Scratch) found.add(origin);
    return found;
  }
  for (const part of value instanceof Map ? value.values() : Object.values(value)) scratchIn(part, found, seen);
  return found;
}

/**
 * Run `forward` once and freeze what it launched. Where a variant does not compile it is refused, and `forward` runs again
 * with the next one.
 * @throws KernelError for a bad launch, or a shader that does not compile and is no variant or the last one.
 */
export async function record<T>(
  host: RecordingDevice,
  name: string,
  forward: (k: Recorder) => T,
): Promise<Recording<T>> {
  const { recorder, result, kernels } = await compiled(host, name, forward);
  const { launches } = recorder;
  for (const scratch of scratchIn(result)) {
    if (scratch.recorder === recorder && scratch.first < 0) {
      throw new KernelError(`${name}: expected its result ${scratch.name} to be written by a kernel, got none`);
    }
    scratch.last = Number.POSITIVE_INFINITY;
  }
  const share = host.pool.open();
  placeScratch(share, launches);
  const params = placeParams(host, name, launches);
  const buffers = new Map<GPUBuffer, number>();
  const groups = new Map<string, { bindGroup: GPUBindGroup; descriptor: GPUBindGroupDescriptor }>();
  const dispatches: Dispatch[] = [];
  const descriptors: GPUBindGroupDescriptor[] = [];
  host.device.pushErrorScope("validation");
  launches.forEach(({ shader, launch }, i) => {
    const kernel = kernels[i] as Kernel;
    const descriptor = bindings(kernel, launch, params?.buffer, params?.offsets[i]);
    const key = groupKey(kernel, descriptor, buffers);
    let group = groups.get(key);
    if (group === undefined) {
      group = { bindGroup: host.device.createBindGroup({ ...descriptor, label: shader }), descriptor };
      groups.set(key, group);
    }
    const [x, y = 1, z = 1] = launch.workgroups;
    dispatches.push(Object.freeze({ pipeline: kernel.pipeline, bindGroup: group.bindGroup, x, y, z }));
    descriptors.push(group.descriptor);
  });
  const refused = await host.device.popErrorScope();
  const destroy = () => {
    share.close();
    if (params) host.destroyBuffer(params.buffer);
  };
  if (refused) {
    destroy();
    throw new KernelError(`${name}: ${refused.message}`);
  }
  return Object.freeze({ name, result, dispatches: Object.freeze(dispatches), descriptors, destroy });
}

/** Run `forward` until all that it launches compiles: each turn but the last refuses a variant. */
async function compiled<T>(
  host: RecordingDevice,
  name: string,
  forward: (k: Recorder) => T,
): Promise<{ recorder: ListRecorder; result: T; kernels: readonly Kernel[] }> {
  for (;;) {
    const recorder = new ListRecorder(host, name);
    const result = forward(recorder);
    recorder.finished = true;
    const kernels: Kernel[] = [];
    const failed: { readonly choice: Choice; readonly error: KernelError }[] = [];
    const outcomes = await Promise.allSettled(
      recorder.launches.map(({ shader, launch }) => host.pipelines.kernel(shader, launch.constants ?? {})),
    );
    for (const [i, outcome] of outcomes.entries()) {
      const choice = recorder.launches[i]?.launch.choice;
      if (outcome.status === "fulfilled") kernels.push(outcome.value);
      else if (choice && outcome.reason instanceof KernelError) failed.push({ choice, error: outcome.reason });
      else throw outcome.reason;
    }
    if (failed.length === 0) return { recorder, result, kernels };
    for (const { choice, error } of failed) choice.refuse(error.message);
    await host.variants.testNext();
  }
}

/** Give each scratch tensor a buffer from its first to its last launch. */
function placeScratch(share: ScratchShare, launches: readonly RecordedLaunch[]): void {
  launches.forEach(({ launch }, i) => {
    const used = new Set<Scratch>();
    for (const tensor of [...Object.values(launch.inputs), ...Object.values(launch.outputs)]) {
      const origin = originOf(tensor);
      if (origin instanceof Scratch) used.add(origin);
    }
    for (const scratch of used) {
      if (scratch.storage) continue;
      scratch.storage = share.take(byteLength(scratch.shape, scratch.type), scratch.last === Number.POSITIVE_INFINITY);
    }
    for (const scratch of used) {
      if (scratch.last === i && scratch.storage) share.giveBack(scratch.storage);
    }
  });
}

/** All params of a recording in one uniform buffer, equal blocks stored once. */
function placeParams(
  host: RecordingDevice,
  name: string,
  launches: readonly RecordedLaunch[],
): { buffer: GPUBuffer; offsets: readonly number[] } | undefined {
  const alignment = Math.max(256, host.device.limits.minUniformBufferOffsetAlignment);
  const places = new Map<string, number>();
  const blocks: { at: number; bytes: Uint8Array }[] = [];
  let end = 0;
  const offsets = launches.map(({ params }) => {
    if (params === undefined) return 0;
    const key = Buffer.from(params).toString("latin1");
    const known = places.get(key);
    if (known !== undefined) return known;
    const at = end;
    blocks.push({ at, bytes: params });
    places.set(key, at);
    end += Math.ceil(params.length / alignment) * alignment;
    return at;
  });
  if (end === 0) return undefined;
  const all = new Uint8Array(end);
  for (const { at, bytes } of blocks) all.set(bytes, at);
  const buffer = host.createBuffer(`${name} params`, end, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  host.device.queue.writeBuffer(buffer, 0, all);
  return { buffer, offsets };
}

function bindings(
  kernel: Kernel,
  launch: Launch,
  params: GPUBuffer | undefined,
  paramsOffset: number | undefined,
): GPUBindGroupDescriptor {
  const tensors = { ...launch.inputs, ...launch.outputs };
  const entries = kernel.declared.bindings.map(({ name, binding, kind }) => {
    if (kind === "params") {
      const size = Math.ceil((kernel.declared.params.length * 4) / 16) * 16;
      return { binding, resource: { buffer: params as GPUBuffer, offset: paramsOffset ?? 0, size } };
    }
    const tensor = tensors[name] as Tensor & BoundBytes;
    // Whole vec4s, so that a kernel over vec4 sees the last partial one; buffers are at least that long.
    const size = tensor.boundBytes ?? Math.ceil(byteLength(tensor.shape, tensor.type) / 16) * 16;
    return { binding, resource: { buffer: tensor.storage as GPUBuffer, offset: tensor.byteOffset, size } };
  });
  return { layout: kernel.layout, entries };
}

/** Equal keys bind the same: the bind group is then made once, and set once if it follows itself. */
function groupKey(kernel: Kernel, descriptor: GPUBindGroupDescriptor, buffers: Map<GPUBuffer, number>): string {
  const parts = [...descriptor.entries].map(({ resource }) => {
    const { buffer, offset, size } = resource as GPUBufferBinding;
    const id = buffers.get(buffer) ?? buffers.size;
    buffers.set(buffer, id);
    return `${id}:${offset}:${size}`;
  });
  return `${JSON.stringify(kernel.declared.bindings)} ${parts.join(" ")}`;
}

/** Replay into a pass: nothing is looked up or allocated. */
export function encode(pass: GPUComputePassEncoder, dispatches: readonly Dispatch[]): void {
  let pipeline: GPUComputePipeline | undefined;
  let bindGroup: GPUBindGroup | undefined;
  for (const dispatch of dispatches) {
    if (dispatch.pipeline !== pipeline) {
      pipeline = dispatch.pipeline;
      pass.setPipeline(pipeline);
    }
    if (dispatch.bindGroup !== bindGroup) {
      bindGroup = dispatch.bindGroup;
      pass.setBindGroup(0, bindGroup);
    }
    pass.dispatchWorkgroups(dispatch.x, dispatch.y, dispatch.z);
  }
}
