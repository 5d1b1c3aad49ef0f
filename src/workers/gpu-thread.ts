// The one thread of a process that owns Dawn: it holds the weights, and runs the rows that the main thread sends.

import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { type Gpu, openGpu } from "../gpu/device.ts";
import type { RowProgram } from "../gpu/row-program.ts";
import { type ProgramStats, RowScheduler } from "../gpu/scheduler.ts";
import { selfTestOnce } from "../gpu/self-test-memory.ts";
import type { GpuModels, OpenedModel } from "./gpu-models.ts";
import type { FromGpuThread, GpuThreadData, ProgramName, ToGpuThread } from "./gpu-protocol.ts";
import { GpuThreadError, toRecord } from "./thread-error.ts";

async function main(port: MessagePort, { options, closed }: GpuThreadData): Promise<void> {
  const say = (message: FromGpuThread, transfer: ArrayBuffer[] = []) => port.postMessage(message, transfer);
  const fatal = (error: unknown) => say({ type: "fatal", error: toRecord(error) });
  // Ending the thread with work under way crashes Dawn and the process: report, and let the main thread close in order.
  process.on("uncaughtException", (error) => {
    fatal(new GpuThreadError(`gpu thread: expected to run, got ${error.name}: ${error.message}`, { cause: error }));
  });
  const opening = openGpu({
    nap: true,
    giveWay: true,
    cacheFolder: options.cacheFolder,
    tell: (line) => say({ type: "told", line }),
    ...(options.bindingLimit === undefined ? {} : { bindingLimit: options.bindingLimit }),
    ...(options.validation === undefined ? {} : { validation: options.validation }),
  });
  // From the start, because the process may end at any time.
  port.on("message", (message: ToGpuThread) => {
    if (message.type === "exit") void closeDevice(opening, closed);
  });
  const gpu = await opening;
  gpu.lost.catch(fatal);
  const { selfTest, loadModel } = (await import(options.models)) as GpuModels;
  const test = () => selfTest(gpu);
  const passed = await selfTestOnce(options, gpu.report, gpu.variants, test).catch((error: unknown) => {
    gpu.close();
    throw error;
  });
  const scheduler = new RowScheduler({ onFatal: fatal });
  const models: OpenedModel[] = [];
  const aborts = new Map<number, AbortController>();

  const answer = async (id: number, work: () => unknown) => {
    try {
      const value = await work();
      say({ type: "done", id, value }, ownBuffers(value));
    } catch (error) {
      say({ type: "failed", id, error: toRecord(error) });
    }
  };

  const receive = async (message: ToGpuThread): Promise<void> => {
    switch (message.type) {
      case "load":
        return answer(message.id, async () => {
          const loaded = await loadModel(gpu, message.request, {
            cacheFolder: options.cacheFolder,
            onProgress: (progress) => say({ type: "progress", id: message.id, progress }),
          });
          const model = models.push(loaded) - 1;
          const { card, folder, programs, memory, rowBytes } = loaded;
          return { model, card, folder, programs: Object.keys(programs), memory, rowBytes };
        });
      case "row": {
        const abort = new AbortController();
        aborts.set(message.id, abort);
        await answer(message.id, () => {
          const program = programOf(models[message.model], message.program);
          const onPartial = (value: unknown) => say({ type: "partial", id: message.id, value });
          return scheduler.run(program, message.input, {
            priority: message.priority,
            signal: abort.signal,
            ...(message.partial && { onPartial }),
          });
        });
        aborts.delete(message.id);
        return;
      }
      case "abort":
        // The caller has its own reason already; the row only has to go.
        aborts.get(message.id)?.abort(new Error("aborted"));
        return;
      case "stats":
        return answer(message.id, async () => ({
          programs: Object.fromEntries(models.flatMap((model) => statsOf(scheduler, model))),
          load: scheduler.load,
          allocatedBytes: gpu.allocatedBytes,
        }));
      case "close":
        await scheduler.close(message.how);
        gpu.close();
        port.close();
        return;
      case "exit":
        return;
    }
  };
  port.on("message", (message: ToGpuThread) => {
    receive(message).catch(fatal);
  });
  say({ type: "opened", report: gpu.report, selfTest: passed, variants: gpu.variants.describe() });
}

function programOf(model: OpenedModel | undefined, name: ProgramName): RowProgram<unknown, unknown> {
  const programs: Readonly<Partial<Record<ProgramName, unknown>>> = model?.programs ?? {};
  const program = programs[name];
  if (program === undefined) throw new Error(`gpu thread: expected ${name} of a loaded model, got none`);
  return program as RowProgram<unknown, unknown>;
}

/** [name, counters] of each program of a model. */
function statsOf(scheduler: RowScheduler, { card, programs }: OpenedModel): [string, ProgramStats][] {
  return Object.entries(programs).map(([name, program]) => [
    `${card.ref} ${card.dtype} ${name}`,
    scheduler.stats(program),
  ]);
}

/** At once, whatever is under way, and tell the main thread, which waits for it inside process.exit(). */
async function closeDevice(opening: Promise<Gpu>, closed: Int32Array): Promise<void> {
  const gpu = await opening.catch(() => undefined);
  gpu?.close();
  // The callbacks of what was under way still have to run in this thread.
  await new Promise((resolve) => setTimeout(resolve, 5));
  Atomics.store(closed, 0, 1);
  Atomics.notify(closed, 0);
}

/** Buffers of a result that nothing here keeps: they move to the main thread without a copy. */
function ownBuffers(value: unknown): ArrayBuffer[] {
  if (typeof value !== "object" || value === null || !("bytes" in value)) return [];
  const { bytes } = value;
  if (!(bytes instanceof Uint8Array) || !(bytes.buffer instanceof ArrayBuffer)) return [];
  // A part of a larger buffer may be one row of a batch whose other rows are still to be sent.
  return bytes.byteLength === bytes.buffer.byteLength ? [bytes.buffer] : [];
}

if (parentPort) {
  const port = parentPort;
  const data = workerData as GpuThreadData;
  main(port, data).catch((error: unknown) => {
    port.postMessage({ type: "fatal", error: toRecord(error) } satisfies FromGpuThread);
    port.close();
  });
}
