// Beam search, third of three: which beams run on, which ended, and whether an item is done.

import type { Recorder } from "../gpu/recorder.ts";
import { expectShape, type Tensor } from "../gpu/tensor.ts";
import { type DecodeState, endedHead, room, settingsHead } from "./decode-state.ts";
import { scanLanes } from "./vocabulary-chunks.ts";

/** candidates (items, keep, 2) of beamCandidates -> state.progress, state.choice, state.ended, in place */
export function beamStep(k: Recorder, candidates: Tensor, state: DecodeState): void {
  const { items, beams, newRows, settings, stopIds, history, progress, choice, ended } = state;
  const [keep = 0] = expectShape("beamStep", candidates, [items, "keep", 2]);
  expectShape("beamStep", history, [items * beams, newRows]);
  expectShape("beamStep", progress, [items, 2 + beams]);
  expectShape("beamStep", ended, [items * beams, endedHead + newRows]);
  k.launch("beam-step", {
    inputs: { candidates, settings, stopIds, history },
    outputs: { progress, choice, ended },
    params: {
      vocabulary: state.vocabulary,
      settingsWidth: settingsHead + newRows,
      stopCount: state.stopCount,
      newRows,
      beams,
      keep,
    },
    constants: { lanes: scanLanes(k.softwareAdapter), mostBeams: room(beams, 8), mostKept: room(keep, 16) },
    workgroups: [items],
  });
}
