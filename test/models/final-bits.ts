// What a batch of sequences leaves on the GPU, for tests that compare batches to the bit.

import type { Gpu } from "../../src/gpu/device.ts";
import type { DecodeMachine } from "../../src/models/decode-machine.ts";
import type { GenerateRow } from "../../src/models/generate-row.ts";

/** Ids, scores and counters of every row, to the bit: what the GPU holds when all of them are done. */
export async function finalBits(
  gpu: Gpu,
  machine: DecodeMachine,
  rows: readonly GenerateRow[],
  perSubmit: number,
): Promise<string[]> {
  await machine.clear();
  await gpu.submit(await machine.load([...rows.entries()]));
  const steps = Math.max(...rows.map(({ generation }) => generation.maxNewTokens));
  for (let step = 0; step < steps; step += perSubmit) {
    await gpu.submit(new Array(Math.min(perSubmit, steps - step)).fill(machine.next).flat());
  }
  const { progress, ended, beams, newRows } = machine.state;
  const words = async (tensor: typeof progress) => new Uint32Array(await gpu.read(tensor));
  const [progressWords, endedWords] = [await words(progress), await words(ended)];
  return rows.map((_, item) => {
    const own = [...progressWords.subarray(item * (2 + beams), (item + 1) * (2 + beams))];
    const records = Array.from({ length: beams }, (_, beam) => {
      const from = (item * beams + beam) * (3 + newRows);
      const length = endedWords[from + 2] ?? 0;
      return [...endedWords.subarray(from, from + 3 + length)];
    });
    return JSON.stringify({ own, records });
  });
}
