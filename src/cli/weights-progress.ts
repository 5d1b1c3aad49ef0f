// Progress of what takes minutes with a large checkpoint: downloading, hashing, uploading.

import type { WeightsProgress } from "../weights/repository.ts";
import { tell } from "./output.ts";
import { Progress } from "./progress.ts";

const phases = { download: "downloading", hash: "hashing", upload: "loading" } as const;

/** Bytes below which nothing is said: a moment's work. */
const small = 50e6;

/** Tell of one file or model after the other, in MB; `finish` after the last. */
export function weightsProgress(): { report(progress: WeightsProgress): void; finish(): void } {
  let current: { readonly key: string; readonly progress: Progress } | null = null;
  const finish = () => {
    current?.progress.finish();
    current = null;
  };
  return {
    finish,
    report({ phase, what, done, total }) {
      if (total < small) return;
      const key = `${phases[phase]} ${what}`;
      if (current?.key !== key) {
        finish();
        tell(key);
        current = { key, progress: new Progress(Math.ceil(total / 1e6), { noun: "MB" }) };
      }
      current.progress.set(Math.floor(done / 1e6), 0);
    },
  };
}
