// The SHA-256 of a large file, computed by a thread of its own.

import { Worker } from "node:worker_threads";
import type { FromHashThread, HashThreadData } from "./hash-thread.ts";

/**
 * Hex SHA-256 of a file.
 * @param onBytes told how many are hashed
 * @param signal ends the thread
 * @throws what reading the file throws; the signal's reason
 */
export function hashInThread(file: string, onBytes: (done: number) => void, signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const workerData: HashThreadData = { file };
    const worker = new Worker(new URL("./hash-thread.js", import.meta.url), { workerData, name: "hash" });
    const end = () => {
      reject(signal?.reason);
      void worker.terminate();
    };
    signal?.addEventListener("abort", end, { once: true });
    worker.on("message", (message: FromHashThread) => {
      if ("sha256" in message) resolve(message.sha256);
      else onBytes(message.done);
    });
    worker.on("error", reject);
    worker.on("exit", (code) => {
      signal?.removeEventListener("abort", end);
      reject(new Error(`hash: expected the SHA-256 of ${file}, got an end of its thread with code ${code}`));
    });
  });
}
