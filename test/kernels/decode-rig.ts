// A DecodeState of guarded tensors for tests of the kernels that decode.

import { type DecodeState, endedHead, settingsHead } from "../../src/kernels/decode-state.ts";
import type { Settings } from "../reference/decoding.ts";
import type { Rig } from "./harness.ts";

export interface DecodeCase {
  readonly beams: number;
  readonly newRows: number;
  readonly vocabulary: number;
  readonly stopIds: readonly number[];
  readonly promptSlots?: number;
  readonly positions?: number;
  readonly items: readonly {
    readonly settings: Settings;
    readonly promptLength?: number;
    /** Ids seen by all beams of the item. */
    readonly seen?: readonly number[];
    readonly generated?: number;
    readonly done?: boolean;
    /** Running scores; default 0 for beam 0, else -1e9. */
    readonly running?: readonly number[];
  }[];
}

export function floatBits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0] ?? 0;
}

export function fromFloatBits(bits: number | undefined): number {
  return new Float32Array(Uint32Array.of(bits ?? 0).buffer)[0] ?? Number.NaN;
}

/** State as at the start of a sequence, unless the case says otherwise; table and history are poison. */
export async function decodeState(rig: Rig, given: DecodeCase): Promise<DecodeState> {
  const { beams, newRows, vocabulary, stopIds, promptSlots = 0, positions = 1, items } = given;
  const rows = items.length * beams;
  const words = Math.ceil(vocabulary / 32);
  const seen = new Uint32Array(rows * words);
  const settings: number[] = [];
  const progress: number[] = [];
  for (const [i, item] of items.entries()) {
    const { maxNew, minNew, penalty, lengthPenalty } = item.settings;
    const divisors = Array.from({ length: newRows }, (_, n) => floatBits((n + 1) ** lengthPenalty));
    settings.push(maxNew, minNew, floatBits(penalty), item.promptLength ?? 0, ...divisors);
    const running = item.running ?? Array.from({ length: beams }, (_, beam) => (beam === 0 ? 0 : -1e9));
    progress.push(item.generated ?? 0, item.done ? 1 : 0, ...running.map(floatBits));
    for (const id of item.seen ?? []) {
      for (let beam = 0; beam < beams; beam++) {
        const at = (i * beams + beam) * words + (id >> 5);
        seen[at] = (seen[at] ?? 0) | (1 << (id & 31));
      }
    }
  }
  const ended = Array.from({ length: rows }, () => [0, floatBits(-1e9), 0, ...new Array(newRows).fill(0)]).flat();
  const u32 = (name: string, shape: readonly number[], values?: ArrayLike<number>) =>
    rig.tensor(name, shape, values, "u32");
  return {
    items: items.length,
    beams,
    newRows,
    vocabulary,
    stopCount: stopIds.length,
    promptSlots,
    settings: await u32("settings", [items.length, settingsHead + newRows], settings),
    stopIds: await u32("stopIds", [Math.max(1, stopIds.length)], stopIds.length > 0 ? stopIds : [0]),
    progress: await u32("progress", [items.length, 2 + beams], progress),
    choice: await u32("choice", [rows, 2]),
    cursors: await u32("cursors", [rows, 4], new Uint32Array(rows * 4).fill(0xffffffff)),
    table: await u32("table", [rows, positions], new Uint32Array(rows * positions).fill(0xabcd)),
    seen: await u32("seen", [rows, words], seen),
    history: await u32("history", [rows, newRows], new Uint32Array(rows * newRows).fill(0xbeef)),
    ended: await u32("ended", [rows, endedHead + newRows], ended),
  };
}
