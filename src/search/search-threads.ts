// The threads of a search over one index. All work on the same task, piece by piece.

import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { ImageIndexError } from "./errors.ts";
import type { FromSearchThread, SearchOutcome, SearchTask, ToSearchThread } from "./search-tasks.ts";
import type { StoredIndex } from "./vector-file-format.ts";

/** More read faster than memory gives. */
const mostThreads = 16;

export class SearchThreads {
  readonly #workers: readonly Worker[];
  #failed: Error | null = null;
  readonly #waiting = new Map<Worker, { resolve(outcome: SearchOutcome): void; reject(error: Error): void }>();

  constructor(stored: StoredIndex, count: number = Math.min(availableParallelism(), mostThreads)) {
    this.#workers = Array.from({ length: count }, () => {
      const worker = new Worker(new URL("./search-thread.js", import.meta.url), { workerData: stored, name: "search" });
      worker.on("message", (message: FromSearchThread) => {
        const waiting = this.#waiting.get(worker);
        this.#waiting.delete(worker);
        if ("outcome" in message) waiting?.resolve(message.outcome);
        else waiting?.reject(errorFrom(message.error));
      });
      worker.on("error", (cause) => this.#fail(new Error(`search thread: expected to run, got ${cause}`, { cause })));
      worker.on("exit", () => this.#fail(new Error("search thread: expected to run, got its end")));
      return worker;
    });
  }

  /**
   * Do all pieces of a task. One at a time. @returns what each thread found
   * @throws ImageIndexError for a damaged index
   */
  async run(task: SearchTask, pieces: number): Promise<SearchOutcome[]> {
    if (this.#failed !== null) throw this.#failed;
    const message: ToSearchThread = { task, pieces, next: new SharedArrayBuffer(4) };
    const running = this.#workers.slice(0, pieces).map(
      (worker) =>
        new Promise<SearchOutcome>((resolve, reject) => {
          this.#waiting.set(worker, { resolve, reject });
          worker.postMessage(message);
        }),
    );
    const settled = await Promise.allSettled(running);
    return settled.map((each) => {
      if (each.status === "rejected") throw each.reason;
      return each.value;
    });
  }

  /** Ends the threads; what they are at is given up, with `reason` as its error. */
  async close(reason?: Error): Promise<void> {
    this.#fail(reason ?? new Error("search threads: expected to be open, got closed ones"));
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #fail(error: Error): void {
    this.#failed ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#failed);
    this.#waiting.clear();
  }
}

function errorFrom({ name, message }: { readonly name: string; readonly message: string }): Error {
  return name === "ImageIndexError" ? new ImageIndexError(message) : new Error(`search thread: ${name}: ${message}`);
}
