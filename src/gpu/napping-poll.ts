// Dawn's Node binding polls for finished work through setImmediate and so burns a core, which on a software adapter
// is a core that the kernels need. A nap of 0.2 ms in each turn of that loop gives it back.

const napMilliseconds = 0.2;
const cell = new Int32Array(new SharedArrayBuffer(4));
let pending = 0;
let installed = false;

/** Make every setImmediate of this thread nap while GPU work is awaited. Only for threads whose one job is the GPU. */
export function installNappingPoll(): void {
  if (installed) return;
  installed = true;
  const plain = globalThis.setImmediate;
  const napping = (callback: (...args: unknown[]) => void, ...args: unknown[]) =>
    plain(() => {
      if (pending > 0) Atomics.wait(cell, 0, 0, napMilliseconds);
      callback(...args);
    });
  globalThis.setImmediate = Object.assign(napping, plain) as typeof setImmediate;
}

/** Await GPU work; the poll naps meanwhile if it was installed. */
export async function awaitGpu<T>(work: Promise<T>): Promise<T> {
  pending++;
  try {
    return await work;
  } finally {
    pending--;
  }
}
