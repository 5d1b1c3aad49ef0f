// Greedy decoding, second half: the token of each row, and whether the row is done.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { type DecodeState, endedHead, settingsHead } from "./decode-state.ts";

const lanes = 8;

/** best (items, chunks, 2) of greedyScores -> state.choice, state.progress, state.ended, in place */
export function greedyStep(k: Recorder, best: Tensor, state: DecodeState): void {
  const { items, newRows, settings, stopIds, progress, choice, ended } = state;
  const [chunks = 0] = expectShape("greedyStep", best, [items, "chunks", 2]);
  expectShape("greedyStep", ended, [items, endedHead + newRows]);
  k.launch("greedy-step", {
    inputs: { best, settings, stopIds },
    outputs: { progress, choice, ended },
    params: { rows: items, chunks, settingsWidth: settingsHead + newRows, stopCount: state.stopCount, newRows },
    constants: { lanes },
    workgroups: [Math.ceil(items / lanes)],
  });
}
