// --dtype auto: the type in which the checkpoint itself is stored, so that the answer is the same on every machine.

import type { Dtype } from "../stages.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import type { DtypeChoice } from "./model-options.ts";
import { tell } from "./output.ts";
import { Progress } from "./progress.ts";

/**
 * The type to load with: as asked, else f16 when a weight of the checkpoint is stored in half precision (f16, bf16),
 * else f32. Downloads the checkpoint first if need be, with progress.
 * @throws CheckpointError, ConfigError, HubError, WeightsError
 */
export async function resolveDtype(ref: string, choice: DtypeChoice): Promise<Dtype> {
  if (choice !== "auto") return choice;
  const download = downloadProgress();
  const checkpoint = await openCheckpoint(ref, { onProgress: download.report });
  download.finish();
  const half = [...checkpoint.tensors.values()].some(({ dtype }) => dtype === "F16" || dtype === "BF16");
  return half ? "f16" : "f32";
}

/** Shows the download of one file after the other, in MB. */
function downloadProgress() {
  let current: { readonly what: string; readonly progress: Progress } | null = null;
  const finish = () => {
    current?.progress.finish();
    current = null;
  };
  return {
    finish,
    report({ phase, what, done, total }: { phase: string; what: string; done: number; total: number }) {
      if (phase !== "download") return;
      if (current?.what !== what) {
        finish();
        tell(`downloading ${what}`);
        current = { what, progress: new Progress(Math.ceil(total / 1e6), { noun: "MB" }) };
      }
      current.progress.set(Math.floor(done / 1e6), 0);
    },
  };
}
