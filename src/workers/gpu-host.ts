// The main thread's side of the GPU thread: starts it, sends rows, and knows when it is gone.

import { Worker } from "node:worker_threads";
import type { Priority } from "../gpu/scheduler.ts";
import type { RowOptions } from "../stages.ts";
import type { WeightsProgress } from "../weights/repository.ts";
import type {
  FromGpuThread,
  GpuStats,
  GpuThreadData,
  GpuThreadOptions,
  ModelRequest,
  OpenedGpu,
  ProgramName,
  ThreadModel,
  ToGpuThread,
} from "./gpu-protocol.ts";
import { fromRecord, GpuThreadError } from "./thread-error.ts";

/** Milliseconds that a failed thread gets to end by itself; ending it by force while Dawn works may end the process. */
const terminateAfter = 5000;

/** Milliseconds that process.exit() waits for the device to close: longer than any one submit should take. */
const exitAfter = 2000;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly onPartial?: (value: unknown) => void;
}

/** Two threads that own Dawn abort the process. */
let open: GpuHost | undefined;

/**
 * Start the GPU thread: open the adapter, pass the self-test.
 * @param tell told lines for people, as about a kernel's variant that this adapter refuses
 * @throws AdapterError, KernelError (self-test), GpuThreadError if this process has a GPU thread already.
 */
export async function openGpuHost(options: GpuThreadOptions, tell: (line: string) => void): Promise<GpuHost> {
  if (open)
    throw new GpuThreadError("gpu thread: expected one per process, got a second; serve more models through it");
  const host = new GpuHost(options, tell);
  open = host;
  void host.ended.then(() => {
    open = undefined;
  });
  await host.opened;
  return host;
}

export class GpuHost {
  /** Resolves when the thread is ready, rejects when it could not be opened. */
  readonly opened: Promise<OpenedGpu>;
  /**
   * Resolves with the one error after which nothing works: lost device, out of memory, crashed thread. Every pending
   * call rejects with the same error. The process should end with it as its last line.
   */
  readonly fatal: Promise<Error>;
  /** Resolves when the thread has ended, for whatever reason. */
  readonly ended: Promise<void>;

  readonly #worker: Worker;
  readonly #deviceClosed = new Int32Array(new SharedArrayBuffer(4));
  readonly #pending = new Map<number, Pending>();
  readonly #progress = new Map<number, (progress: WeightsProgress) => void>();
  #nextId = 1;
  #closing: Promise<void> | undefined;
  #error: Error | undefined;
  #closed = false;
  #fail: (error: Error) => void = () => {};

  /**
   * process.exit() ends threads where they are, and Dawn aborts the process if it is at work then: the exit status would
   * be lost. So the thread closes its device first, while this thread waits.
   */
  readonly #exit = () => {
    this.#send({ type: "exit" });
    Atomics.wait(this.#deviceClosed, 0, 0, exitAfter);
  };

  constructor(options: GpuThreadOptions, tell: (line: string) => void) {
    const data: GpuThreadData = { options, closed: this.#deviceClosed };
    this.#worker = new Worker(new URL("./gpu-thread.js", import.meta.url), { workerData: data, name: "gpu" });
    process.on("exit", this.#exit);
    let resolveFatal: (error: Error) => void = () => {};
    this.fatal = new Promise((resolve) => {
      resolveFatal = resolve;
    });
    this.#fail = (error) => {
      if (this.#error) return;
      this.#error = error;
      for (const { reject } of this.#pending.values()) reject(error);
      this.#pending.clear();
      if (!this.#closed) resolveFatal(error);
    };
    this.opened = new Promise((resolve, reject) => {
      void this.fatal.then(reject);
      this.#worker.on("message", (message: FromGpuThread) => {
        if (message.type === "told") tell(message.line);
        else if (message.type === "opened") {
          const { report, selfTest, variants } = message;
          resolve({ report, selfTest, variants });
        } else this.#receive(message);
      });
    });
    this.ended = new Promise((resolve) => {
      this.#worker.on("error", (cause) => {
        this.#fail(new GpuThreadError(`gpu thread: expected to run, got ${String(cause)}`, { cause }));
      });
      this.#worker.on("messageerror", (cause) => {
        this.#fail(
          new GpuThreadError(`gpu thread: expected messages that can be read, got ${cause.message}`, { cause }),
        );
      });
      this.#worker.on("exit", (code) => {
        process.off("exit", this.#exit);
        this.#closed = this.#closing !== undefined && code === 0;
        const how = this.#closed ? "was closed" : `ended with code ${code}`;
        this.#fail(new GpuThreadError(`gpu thread: expected to run, but it ${how}`));
        resolve();
      });
    });
  }

  /** Read a checkpoint and upload its weights. @throws what loadModel throws */
  load(request: ModelRequest, onProgress: (progress: WeightsProgress) => void = () => {}): Promise<ThreadModel> {
    let id = 0;
    const loaded = this.#call((given) => {
      id = given;
      return { type: "load", id, request };
    });
    this.#progress.set(id, onProgress);
    return loaded.finally(() => this.#progress.delete(id)) as Promise<ThreadModel>;
  }

  /**
   * One row of one program; rows of all callers are batched in the GPU thread. Rejects with the signal's reason.
   * @param onPartial told what there is so far of the result, where the program makes it piece by piece
   */
  run(
    model: number,
    program: ProgramName,
    input: unknown,
    options: RowOptions = {},
    onPartial?: (value: unknown) => void,
  ): Promise<unknown> {
    const { signal } = options;
    const priority: Priority = options.priority ?? "batch";
    if (signal?.aborted) return Promise.reject(signal.reason);
    let id = 0;
    const result = this.#call((given) => {
      id = given;
      return { type: "row", id, model, program, input, priority, partial: onPartial !== undefined };
    }, onPartial);
    if (signal === undefined) return result;
    const abort = () => this.#send({ type: "abort", id });
    signal.addEventListener("abort", abort);
    return result
      .catch((error: unknown) => {
        throw signal.aborted && this.#error === undefined ? signal.reason : error;
      })
      .finally(() => signal.removeEventListener("abort", abort));
  }

  stats(): Promise<GpuStats> {
    return this.#call((id) => ({ type: "stats", id })) as Promise<GpuStats>;
  }

  /**
   * `drain` finishes the rows there are, `reject` gives them up at the next submit boundary; then the device is closed
   * and the thread ends. After a fatal error nothing is drained, and a thread that does not end is terminated.
   */
  close(how: "drain" | "reject" = "drain"): Promise<void> {
    this.#closing ??= this.#close(how);
    return this.#closing;
  }

  async #close(how: "drain" | "reject"): Promise<void> {
    this.#send({ type: "close", how: this.#error ? "reject" : how });
    void this.fatal.then(() => {
      this.#send({ type: "close", how: "reject" });
      setTimeout(() => void this.#worker.terminate(), terminateAfter).unref();
    });
    await this.ended;
  }

  #call(make: (id: number) => ToGpuThread, onPartial?: (value: unknown) => void): Promise<unknown> {
    if (this.#error) return Promise.reject(this.#error);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, ...(onPartial && { onPartial }) });
      this.#send(make(id));
    });
  }

  #send(message: ToGpuThread): void {
    this.#worker.postMessage(message);
  }

  #receive(message: FromGpuThread): void {
    if (message.type === "fatal") this.#fail(fromRecord(message.error));
    if (message.type === "progress") this.#progress.get(message.id)?.(message.progress);
    if (message.type === "partial") this.#pending.get(message.id)?.onPartial?.(message.value);
    if (message.type !== "done" && message.type !== "failed") return;
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.type === "done") pending?.resolve(message.value);
    else pending?.reject(fromRecord(message.error));
  }
}
