// The same shapes in Hugging Face transformers, by bench/hugging-face-blip-2.py, where Python has PyTorch with CUDA.

import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { packageRoot } from "../src/gpu/package-root.ts";
import type { GpuRow } from "./gpu-parts.ts";

const script = join(packageRoot, "bench", "hugging-face-blip-2.py");

/**
 * Run the script.
 * @param keep told every row as it comes
 * @param absent told why there are none, or no more
 */
export async function huggingFaceRows(
  { quick, seconds }: { readonly quick: boolean; readonly seconds: number },
  keep: (row: GpuRow) => void,
  absent: (reason: string) => void,
): Promise<void> {
  const child = spawn("python3", [script, ...(quick ? ["--quick"] : [])], { stdio: ["ignore", "pipe", "pipe"] });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, 1000 * seconds);
  let complaints = "";
  child.stderr.on("data", (data) => {
    complaints = `${complaints}${data}`.slice(-4000);
  });
  const ended = new Promise<number | null>((resolve) => {
    child.on("error", () => resolve(null));
    child.on("close", resolve);
  });
  try {
    for await (const text of createInterface({ input: child.stdout })) {
      if (text.startsWith("{")) keep(JSON.parse(text) as GpuRow);
    }
    const status = await ended;
    if (late) absent(`expected to end within ${seconds} s`);
    else if (status === null) absent("expected python3, found none");
    else if (status !== 0) absent(complaints.trim().split("\n").at(-1) ?? `python3 ended with status ${status}`);
  } finally {
    clearTimeout(timer);
  }
}
