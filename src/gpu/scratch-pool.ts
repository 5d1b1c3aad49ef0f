// Buffers that recordings share. Lists replay one after another on one queue, so two recordings may use the same
// scratch buffer; within a recording, tensors share one only when their lives do not overlap.

interface Pooled {
  readonly buffer: GPUBuffer;
  /** Recordings that were given it. */
  users: number;
}

/** Bytes are rounded up so that different shapes can share: to at most an eighth more. */
export function sizeClass(bytes: number): number {
  if (bytes <= 4096) return Math.max(256, 2 ** Math.ceil(Math.log2(bytes)));
  const step = 2 ** (Math.floor(Math.log2(bytes)) - 3);
  return Math.ceil(bytes / step) * step;
}

export class ScratchPool {
  readonly #create: (name: string, bytes: number) => GPUBuffer;
  readonly #destroy: (buffer: GPUBuffer) => void;
  readonly #classes = new Map<number, Pooled[]>();

  constructor(create: (name: string, bytes: number) => GPUBuffer, destroy: (buffer: GPUBuffer) => void) {
    this.#create = create;
    this.#destroy = destroy;
  }

  /** One recording's share. */
  open(): ScratchShare {
    const held = new Map<GPUBuffer, { pooled: Pooled; size: number }>();
    const free = new Map<number, GPUBuffer[]>();
    return {
      take: (bytes, exclusive) => {
        const size = sizeClass(bytes);
        if (exclusive) {
          const buffer = this.#create("result", size);
          held.set(buffer, { pooled: { buffer, users: 1 }, size: 0 });
          return buffer;
        }
        // Least recently used first: the next kernel then does not overwrite what the last one still reads.
        const again = free.get(size)?.shift();
        if (again) return again;
        const all = this.#classes.get(size) ?? [];
        this.#classes.set(size, all);
        let pooled = all.find((each) => !held.has(each.buffer));
        if (pooled === undefined) {
          pooled = { buffer: this.#create("scratch", size), users: 0 };
          all.push(pooled);
        }
        pooled.users++;
        held.set(pooled.buffer, { pooled, size });
        return pooled.buffer;
      },
      giveBack: (buffer) => {
        const size = held.get(buffer)?.size ?? 0;
        if (size === 0) return;
        const list = free.get(size) ?? [];
        list.push(buffer);
        free.set(size, list);
      },
      close: () => {
        for (const [buffer, { pooled, size }] of held) {
          pooled.users--;
          if (pooled.users > 0) continue;
          this.#destroy(buffer);
          const all = this.#classes.get(size) ?? [];
          const at = all.indexOf(pooled);
          if (at >= 0) all.splice(at, 1);
        }
        held.clear();
      },
    };
  }
}

export interface ScratchShare {
  /** A buffer of at least `bytes`; exclusive ones are shared with no other tensor and no other recording. */
  take(bytes: number, exclusive: boolean): GPUBuffer;
  /** The tensor in it has been used for the last time in this recording. */
  giveBack(buffer: GPUBuffer): void;
  /** The recording is gone. */
  close(): void;
}
