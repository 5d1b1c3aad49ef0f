// The end of a step: what belongs to a beam follows it, and the cursors move on.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape } from "../gpu/tensor.ts";
import { type DecodeState, room, settingsHead } from "./decode-state.ts";

const lanes = 64;

/** state.choice -> state.cursors, state.seen, state.table, state.history, in place; items that are done stay, without cursors */
export function advance(k: Recorder, state: DecodeState): void {
  const { items, beams, newRows, promptSlots, choice, settings, progress, cursors, seen, table, history } = state;
  const rows = items * beams;
  const [seenWords = 0] = expectShape("advance", seen, [rows, "words"]);
  const [positions = 0] = expectShape("advance", table, [rows, "positions"]);
  expectShape("advance", history, [rows, newRows]);
  expectShape("advance", cursors, [rows, 4]);
  expectShape("advance", choice, [rows, 2]);
  k.launch("advance", {
    inputs: { choice, settings, progress },
    outputs: { cursors, seen, table, history },
    params: { seenWords, positions, newRows, settingsWidth: settingsHead + newRows, promptSlots, beams },
    constants: { lanes, mostBeams: beams === 1 ? 1 : room(beams, 8) },
    workgroups: [Math.ceil(Math.max(seenWords, positions, newRows) / lanes), items],
  });
}
