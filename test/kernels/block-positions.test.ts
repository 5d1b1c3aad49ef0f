import assert from "node:assert/strict";
import { test } from "node:test";
import { blockPositions } from "../../src/kernels/block-positions.ts";
import { none } from "../../src/kernels/decode-state.ts";
import { blockPositionsReference } from "../reference/block-positions.ts";
import { openRig } from "./harness.ts";

const rig = await openRig();

const contexts = [1, 7, 40, 2047];
const row = (sequence: number, position: number | null) => ({ sequence, position, context: contexts[sequence] ?? 0 });

for (const [name, rows] of [
  [
    "the first and the last rows of contexts, and those behind",
    contexts.flatMap((context, sequence) =>
      [0, context - 1, context, context + 1, context + 30].map((position) => row(sequence, position)),
    ),
  ],
  [
    "rows of padding between others, more than a workgroup",
    Array.from({ length: 131 }, (_, i) => row(i % 4, i % 5 === 3 ? null : (i * 17) % 90)),
  ],
  ["one row", [row(2, 41)]],
] as const) {
  test(name, async () => {
    const cursors = rows.flatMap(({ sequence, position }) => [5, position ?? none, 9, sequence]);
    const cursorsTensor = await rig.tensor("cursors", [rows.length, 4], cursors, "u32");
    const contextsTensor = await rig.tensor("contexts", [4], contexts, "u32");
    const [got] = await rig.run((k) => [blockPositions(k, cursorsTensor, contextsTensor)]);
    assert.deepEqual([...(got ?? [])], blockPositionsReference(rows, none));
  });
}
