// A thread that computes the SHA-256 of one file: hashing is as much work as reading, and is not to hold up who loads.

import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";

/** What it is started with. */
export interface HashThreadData {
  readonly file: string;
}

/** Bytes hashed so far, or in the end the hash in hex. */
export type FromHashThread = { readonly done: number } | { readonly sha256: string };

/** Stays in a core's cache between being read and being hashed. */
const pieceBytes = 1024 * 1024;
/** Bytes between two messages. */
const toldEvery = 32 * pieceBytes;

function hashFile(file: string, tell: (message: FromHashThread) => void): void {
  const hash = createHash("sha256");
  const piece = Buffer.alloc(pieceBytes);
  const handle = openSync(file, "r");
  try {
    let done = 0;
    for (;;) {
      const size = readSync(handle, piece, 0, piece.length, null);
      if (size === 0) break;
      hash.update(piece.subarray(0, size));
      const told = Math.floor(done / toldEvery);
      done += size;
      if (Math.floor(done / toldEvery) > told) tell({ done });
    }
    tell({ done });
  } finally {
    closeSync(handle);
  }
  tell({ sha256: hash.digest("hex") });
}

if (parentPort) {
  const port = parentPort;
  hashFile((workerData as HashThreadData).file, (message) => port.postMessage(message));
}
