import assert from "node:assert/strict";
import { test } from "node:test";
import { advance } from "../../src/kernels/advance.ts";
import { none } from "../../src/kernels/decode-state.ts";
import type { Settings } from "../reference/decoding.ts";
import { decodeState } from "./decode-rig.ts";
import { openRig } from "./harness.ts";

const rig = await openRig();
const plain: Settings = { maxNew: 9, minNew: 0, penalty: 1, lengthPenalty: 1 };

async function compare(beams: number, vocabulary: number, positions: number, newRows: number) {
  const promptLengths = [3, positions - newRows, 1];
  // Ids generated, the new one included; item 1 is done and must stay as it is, but without cursors.
  const generated = [1, 2, newRows];
  const promptSlots = 1000;
  const rows = 3 * beams;
  const state = {
    ...(await decodeState(rig, {
      beams,
      newRows,
      vocabulary,
      stopIds: [],
      promptSlots,
      positions,
      items: promptLengths.map((promptLength, i) => ({
        settings: plain,
        promptLength,
        generated: generated[i] ?? 0,
        done: i === 1,
      })),
    })),
  };
  const words = Math.ceil(vocabulary / 32);
  const filled = (name: string, width: number, mark: number) => {
    const values = Array.from({ length: rows * width }, (_, i) => mark + 7 * i);
    return { values, tensor: rig.tensor(name, [rows, width], values, "u32") };
  };
  const seen = filled("seen", words, 0x10000);
  const table = filled("table", positions, 5);
  const history = filled("history", newRows, 9);
  const cursors = filled("cursors", 4, 3);
  // Parents in an order that an update in place without care would spoil; tokens at the edges of words.
  const parents = Array.from({ length: rows }, (_, row) => (row * 5 + 2) % beams);
  const tokens = Array.from({ length: rows }, (_, row) => [0, 31, 32, vocabulary - 1, 33][row % 5] ?? 0).map((id) =>
    Math.min(id, vocabulary - 1),
  );
  const choice = await rig.tensor(
    "choice",
    [rows, 2],
    tokens.flatMap((token, row) => [token, parents[row] ?? 0]),
    "u32",
  );
  const tensors = {
    choice,
    seen: await seen.tensor,
    table: await table.tensor,
    history: await history.tensor,
    cursors: await cursors.tensor,
  };
  await rig.run((k) => {
    advance(k, { ...state, ...tensors });
    return [];
  });
  const expected = {
    seen: [...seen.values],
    table: [...table.values],
    history: [...history.values],
    cursors: [...cursors.values],
  };
  for (let row = 0; row < rows; row++) {
    const item = Math.floor(row / beams);
    if (item === 1) {
      expected.cursors.splice(row * 4, 4, none, none, none, none);
      continue;
    }
    const t = (generated[item] ?? 0) - 1;
    const parent = item * beams + (parents[row] ?? 0);
    const token = tokens[row] ?? 0;
    const slot = (item + 1) * promptSlots + row * newRows + t;
    const position = (promptLengths[item] ?? 0) + t;
    const from = (values: readonly number[], width: number) => values.slice(parent * width, (parent + 1) * width);
    const ownSeen = from(seen.values, words);
    ownSeen[token >> 5] = ((ownSeen[token >> 5] ?? 0) | (1 << (token & 31))) >>> 0;
    expected.seen.splice(row * words, words, ...ownSeen);
    expected.table.splice(row * positions, positions, ...from(table.values, positions).with(position, slot));
    expected.history.splice(row * newRows, newRows, ...from(history.values, newRows).with(t, token));
    expected.cursors.splice(row * 4, 4, token, position, slot, row);
  }
  for (const name of ["seen", "table", "history", "cursors"] as const) {
    assert.deepEqual([...(await rig.read(tensors[name]))], expected[name], name);
  }
}

for (const [beams, vocabulary, positions, newRows] of [
  [1, 33, 12, 8],
  [2, 41, 20, 8],
  [3, 64, 63, 8],
  [5, 97, 66, 16],
  [6, 2100, 40, 32],
  [9, 65, 130, 8],
  [32, 3000, 50, 16],
] as const) {
  test(`${beams} beams, ${vocabulary} ids, ${positions} positions, ${newRows} new`, async () => {
    await compare(beams, vocabulary, positions, newRows);
  });
}
