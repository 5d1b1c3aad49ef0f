// The device: tensors, uploads, reads, recordings and submits. One per process, owned by one thread.

import { setPriority } from "node:os";
import { type AdapterReport, adapterLine, findAdapter } from "./adapter.ts";
import { AdapterError, DeviceLostError, KernelError, OutOfMemoryError, ShapeError } from "./errors.ts";
import { awaitGpu, installNappingPoll } from "./napping-poll.ts";
import { Pipelines } from "./pipelines.ts";
import type { Recorder } from "./recorder.ts";
import { encode, type Recording, record } from "./recording.ts";
import { ScratchPool } from "./scratch-pool.ts";
import { byteLength, type ElementType, type Tensor } from "./tensor.ts";
import { fallbackTable, ownTable, type TableFile, tablesFor } from "./tuning-table.ts";
import { Variants } from "./variants.ts";

export interface OpenOptions {
  /** Most bytes of one tensor that a kernel binds; below the device's own limit so that tiny models exercise splitting. */
  readonly bindingLimit?: number;
  /** Dawn's checks of every call. Default true; without them encoding is cheaper and a mistake may end the process. */
  readonly validation?: boolean;
  /** Nap while waiting, see napping-poll.ts. Default false. */
  readonly nap?: boolean;
  /**
   * On a CPU driver, run this thread and the driver's own at low priority, so that other threads and the servers on this
   * machine stay quick. Only for a thread that does nothing else: it cannot be taken back. Default false.
   */
  readonly giveWay?: boolean;
  /** Choose the kernel family for CPU drivers or for GPUs whatever the adapter is; tests run both. */
  readonly softwareAdapter?: boolean;
  /** Features that the device is not to have though the adapter offers them; tests stand for lesser adapters so. */
  readonly withheldFeatures?: readonly string[];
  /** The cache folder, where `blipfleet tune` leaves a table of this machine. Left out: only the package's tables count. */
  readonly cacheFolder?: string;
  /** Told one line about every kernel variant that is refused, and about a table that cannot be read. Default: stderr. */
  readonly tell?: (line: string) => void;
}

/** As `nice` counts: at most a tenth of a contended core, all of an idle one. */
const lowPriority = 10;
/** Dawn's upload ring is 4 MiB; bigger writes get fresh staging each time. */
const uploadPiece = 4 * 1024 * 1024;
/** Bytes written before the queue is awaited, so that staging does not pile up. */
const uploadWindow = 64 * 1024 * 1024;

/** Open the adapter's device. @throws AdapterError */
export async function openGpu(options: OpenOptions = {}): Promise<Gpu> {
  if (options.nap) installNappingPoll();
  const { adapter, report: whole } = await findAdapter(options.validation ?? true);
  const features = whole.features.filter((feature) => !options.withheldFeatures?.includes(feature));
  const report = { ...whole, features };
  // Threads inherit the priority of the one that makes them, and the driver makes its own with the device.
  if (options.giveWay && report.softwareAdapter) setPriority(lowPriority);
  try {
    const device = await adapter.requestDevice({
      requiredFeatures: features as GPUFeatureName[],
      requiredLimits: report.limits,
    });
    return new Gpu(device, report, options);
  } catch (cause) {
    throw new AdapterError(`adapter: expected ${adapterLine(report)} to give a device, got ${String(cause)}`, {
      cause,
    });
  }
}

/** The tables that kernel variants are chosen from, the first asked first. @throws KernelError for one of the package's */
function chosenTables(report: AdapterReport, options: OpenOptions, tell: (line: string) => void): TableFile[] {
  const { softwareAdapter = report.softwareAdapter, cacheFolder } = options;
  if (softwareAdapter !== report.softwareAdapter) return [fallbackTable(softwareAdapter)];
  try {
    const own = cacheFolder === undefined ? null : ownTable(cacheFolder, report);
    return [...(own ? [own] : []), ...tablesFor(report)];
  } catch (error) {
    if (!(error instanceof KernelError) || cacheFolder === undefined) throw error;
    tell(`kernels: ${error.message}; the package's own tables are used, \`blipfleet tune\` writes it anew`);
    return tablesFor(report);
  }
}

export class Gpu {
  readonly report: AdapterReport;
  readonly softwareAdapter: boolean;
  /** Most bytes of a tensor that a kernel binds. */
  readonly bindingLimit: number;
  /**
   * Rejects with the fault after which no result can be trusted: the device went away other than by close(), ran out of
   * memory, or refused a call. Never resolves. The process must end.
   */
  readonly lost: Promise<never>;
  readonly device: GPUDevice;
  readonly pipelines: Pipelines;
  readonly variants: Variants;
  readonly pool: ScratchPool;

  readonly #sizes = new Map<GPUBuffer, number>();
  readonly #staging: GPUBuffer[] = [];
  readonly #waiting = new Set<(error: Error) => void>();
  #allocatedBytes = 0;
  #uploadedBytes = 0;
  #fault: Error | undefined;
  #closed = false;
  #rejectLost: (error: Error) => void = () => {};

  constructor(device: GPUDevice, report: AdapterReport, options: OpenOptions) {
    this.device = device;
    this.report = report;
    this.softwareAdapter = options.softwareAdapter ?? report.softwareAdapter;
    this.bindingLimit = Math.min(
      device.limits.maxStorageBufferBindingSize,
      device.limits.maxBufferSize,
      options.bindingLimit ?? Number.MAX_SAFE_INTEGER,
    );
    this.pipelines = new Pipelines(device);
    const tell = options.tell ?? ((line: string) => process.stderr.write(`${line}\n`));
    this.variants = new Variants(chosenTables(report, options, tell), report, tell);
    this.pool = new ScratchPool(
      (name, bytes) =>
        this.createBuffer(name, bytes, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST),
      (buffer) => this.destroyBuffer(buffer),
    );
    device.addEventListener("uncapturederror", (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      const message = `device: expected every call to be valid, got: ${error.message}; the process must end and start again`;
      this.#fail(new DeviceLostError(message));
    });
    this.lost = new Promise((_, reject) => {
      this.#rejectLost = reject;
    });
    void device.lost.then((info) => {
      if (this.#closed) return;
      this.#fail(
        new DeviceLostError(
          `device: expected ${adapterLine(report)} to stay, got lost (${info.reason}: ${info.message}) with ` +
            `${this.#allocatedBytes} bytes allocated; the process must end and start again`,
        ),
      );
    });
    this.lost.catch(() => {});
  }

  /** Bytes in buffers that were not freed. */
  get allocatedBytes(): number {
    return this.#allocatedBytes;
  }

  /**
   * A tensor of its own buffer, all zeros, alive until free(). It may be larger than the binding limit, but then no
   * kernel can take it. Running out of memory shows at the next awaited call, as OutOfMemoryError.
   */
  alloc(name: string, shape: readonly number[], type: ElementType): Tensor {
    if (shape.some((size) => !Number.isInteger(size) || size <= 0)) {
      throw new ShapeError(`alloc: expected ${name} to have positive whole sizes, got (${shape.join(", ")})`);
    }
    const bytes = Math.ceil(byteLength(shape, type) / 16) * 16;
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    return Object.freeze({
      name,
      shape: [...shape],
      type,
      storage: this.createBuffer(name, bytes, usage),
      byteOffset: 0,
    });
  }

  /** Destroy the tensor's buffer. Recordings that bind it must not be submitted again. */
  free(tensor: Tensor): void {
    if (tensor.storage) this.destroyBuffer(tensor.storage);
  }

  /**
   * Write bytes into a tensor, from byte `byteOffset` of it on (a multiple of 4).
   * @throws ShapeError if they do not fit.
   */
  async upload(tensor: Tensor, bytes: Uint8Array, byteOffset = 0): Promise<void> {
    const room = byteLength(tensor.shape, tensor.type) - byteOffset;
    if (bytes.length > room || byteOffset % 4 !== 0 || byteOffset < 0 || !tensor.storage) {
      throw new ShapeError(
        `upload: expected at most ${room} bytes at a multiple of 4 of ${tensor.name} (${tensor.shape.join(", ")}), ` +
          `got ${bytes.length} at ${byteOffset}`,
      );
    }
    const { queue } = this.device;
    const whole = Math.floor(bytes.length / 4) * 4;
    const start = tensor.byteOffset + byteOffset;
    for (let at = 0; at < whole; at += uploadPiece) {
      const size = Math.min(uploadPiece, whole - at);
      queue.writeBuffer(tensor.storage, start + at, bytes as Uint8Array<ArrayBuffer>, at, size);
      this.#uploadedBytes += size;
      if (this.#uploadedBytes >= uploadWindow) {
        this.#uploadedBytes = 0;
        await this.#guard(queue.onSubmittedWorkDone());
      }
    }
    if (whole < bytes.length) {
      const tail = new Uint8Array(4);
      tail.set(bytes.subarray(whole));
      queue.writeBuffer(tensor.storage, start + whole, tail);
    }
    this.#check();
  }

  /**
   * Copy whole tensors into the beginnings of others, behind what was submitted before.
   * @throws ShapeError if one does not fit
   */
  copy(pairs: readonly (readonly [from: Tensor, to: Tensor])[]): void {
    this.#check();
    const encoder = this.device.createCommandEncoder();
    for (const [from, to] of pairs) {
      const bytes = byteLength(from.shape, from.type);
      if (!from.storage || !to.storage || from.type !== to.type || bytes > byteLength(to.shape, to.type)) {
        throw new ShapeError(
          `copy: expected ${from.name} (${from.shape.join(", ")}) of ${from.type} to fit into ${to.name} ` +
            `(${to.shape.join(", ")}) of ${to.type}`,
        );
      }
      encoder.copyBufferToBuffer(from.storage, from.byteOffset, to.storage, to.byteOffset, bytes);
    }
    this.device.queue.submit([encoder.finish()]);
  }

  /** Bytes of one tensor. */
  async read(tensor: Tensor): Promise<ArrayBuffer> {
    const [bytes] = await this.submit([], { reads: [tensor] });
    return bytes as ArrayBuffer;
  }

  /** See recording.ts. @throws KernelError */
  record<T>(name: string, forward: (k: Recorder) => T): Promise<Recording<T>> {
    this.#check();
    return this.#guard(record(this, name, forward));
  }

  /**
   * One submit: replay the lists in order (a list may appear several times), then read tensors back.
   * @returns the bytes of `reads`, in order, after all of it is done.
   * @throws DeviceLostError, OutOfMemoryError, KernelError
   */
  async submit(
    lists: readonly Recording[],
    options: { readonly reads?: readonly Tensor[] } = {},
  ): Promise<ArrayBuffer[]> {
    this.#check();
    const reads = options.reads ?? [];
    const encoder = this.device.createCommandEncoder();
    if (lists.length > 0) {
      const pass = encoder.beginComputePass();
      for (const list of lists) encode(pass, list.dispatches);
      pass.end();
    }
    let end = 0;
    const places = reads.map((tensor) => {
      const at = end;
      const bytes = byteLength(tensor.shape, tensor.type);
      end += Math.ceil(bytes / 8) * 8;
      return { tensor, at, bytes };
    });
    if (end === 0) {
      this.device.queue.submit([encoder.finish()]);
      await this.#guard(this.device.queue.onSubmittedWorkDone());
      return [];
    }
    const staging = this.#takeStaging(end);
    for (const { tensor, at, bytes } of places) {
      if (!tensor.storage) throw new ShapeError(`read: expected ${tensor.name} to have a buffer, got none`);
      encoder.copyBufferToBuffer(tensor.storage, tensor.byteOffset, staging, at, bytes);
    }
    this.device.queue.submit([encoder.finish()]);
    await this.#guard(staging.mapAsync(GPUMapMode.READ, 0, end));
    const mapped = staging.getMappedRange(0, end);
    const results = places.map(({ at, bytes }) => mapped.slice(at, at + bytes));
    staging.unmap();
    this.#staging.push(staging);
    return results;
  }

  /** Destroy the device. Pending calls reject; nothing else may be called afterwards. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#fail(new DeviceLostError("device: expected to be open, got closed"));
    this.device.destroy();
  }

  /** A buffer that is counted; for recordings. */
  createBuffer(name: string, bytes: number, usage: GPUBufferUsageFlags): GPUBuffer {
    const { maxBufferSize } = this.device.limits;
    if (bytes > maxBufferSize) {
      throw new OutOfMemoryError(
        `${name}: expected a buffer of at most ${maxBufferSize} bytes on ${adapterLine(this.report)}, got ${bytes}`,
      );
    }
    const allocated = this.#allocatedBytes;
    this.device.pushErrorScope("out-of-memory");
    const buffer = this.device.createBuffer({ label: name, size: bytes, usage });
    void this.device.popErrorScope().then((error) => {
      if (error === null || this.#closed) return;
      this.#fail(
        new OutOfMemoryError(
          `${name}: expected ${bytes} bytes more on ${adapterLine(this.report)} beside ${allocated} allocated, ` +
            `got: ${error.message}; use a smaller model, batch or --dtype`,
        ),
      );
    });
    this.#sizes.set(buffer, bytes);
    this.#allocatedBytes += bytes;
    return buffer;
  }

  destroyBuffer(buffer: GPUBuffer): void {
    this.#allocatedBytes -= this.#sizes.get(buffer) ?? 0;
    this.#sizes.delete(buffer);
    buffer.destroy();
  }

  #takeStaging(bytes: number): GPUBuffer {
    const at = this.#staging.findIndex((each) => each.size >= bytes);
    const [found] = at < 0 ? [] : this.#staging.splice(at, 1);
    if (found) return found;
    // Only the smaller ones are left: replace one rather than gather them.
    const smaller = this.#staging.pop();
    if (smaller) this.destroyBuffer(smaller);
    const size = Math.max(4096, 2 ** Math.ceil(Math.log2(bytes)));
    return this.createBuffer("read", size, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  }

  #check(): void {
    if (this.#fault) throw this.#fault;
  }

  /** The first fault is the cause of all later ones. */
  #fail(error: Error): void {
    this.#fault ??= error;
    if (!this.#closed) this.#rejectLost(this.#fault);
    for (const reject of this.#waiting) reject(this.#fault);
  }

  /** Await GPU work, or the device's end. */
  async #guard<T>(work: Promise<T>): Promise<T> {
    let reject: (error: Error) => void = () => {};
    const failed = new Promise<never>((_, fail) => {
      reject = fail;
    });
    this.#waiting.add(reject);
    try {
      const value = await awaitGpu(Promise.race([work, failed]));
      this.#check();
      return value;
    } finally {
      this.#waiting.delete(reject);
    }
  }
}
