import assert from "node:assert/strict";
import { test } from "node:test";
import { greedyStep } from "../../src/kernels/greedy-step.ts";
import type { Settings } from "../reference/decoding.ts";
import { decodeState, floatBits } from "./decode-rig.ts";
import { openRig } from "./harness.ts";

const rig = await openRig();
const none = 0xffffffff;
const plain: Settings = { maxNew: 5, minNew: 0, penalty: 1, lengthPenalty: 1 };

test("the best chunk's id, its end, the length, and rows that were done before", async () => {
  // Per row: heads of three chunks, settings, ids so far, done before -> token, done.
  const rows: {
    heads: [number, number][];
    maxNew?: number;
    before?: number;
    done?: boolean;
    token: number;
    over: boolean;
  }[] = [
    {
      heads: [
        [1, 3],
        [2, 20],
        [1.5, 40],
      ],
      token: 20,
      over: false,
    },
    {
      heads: [
        [2, 4],
        [2, 21],
        [2, 41],
      ],
      token: 4,
      over: false,
    },
    {
      heads: [
        [-9, 4],
        [-2, 21],
        [-2, 41],
      ],
      token: 21,
      over: false,
    },
    {
      heads: [
        [-9, 4],
        [-2, 21],
        [-1, 50],
      ],
      token: 50,
      over: true,
    },
    {
      heads: [
        [-9, 7],
        [-20, 21],
        [-10, 50],
      ],
      token: 7,
      over: true,
    },
    {
      heads: [
        [0, 5],
        [-1, 21],
        [-1, 41],
      ],
      before: 4,
      token: 5,
      over: true,
    },
    {
      heads: [
        [0, 5],
        [-1, 21],
        [-1, 41],
      ],
      before: 3,
      token: 5,
      over: false,
    },
    {
      heads: [
        [0, 6],
        [-1, 21],
        [-1, 41],
      ],
      maxNew: 1,
      token: 6,
      over: true,
    },
    {
      heads: [
        [0, 6],
        [-1, 21],
        [-1, 41],
      ],
      done: true,
      before: 2,
      token: 6,
      over: true,
    },
    {
      heads: [
        [0, none],
        [-3e38, none],
        [-3.4e38, none],
      ],
      token: none,
      over: true,
    },
    {
      heads: [
        [-3e38, none],
        [-3.4028234663852886e38, 22],
        [-3.4028234663852886e38, none],
      ],
      token: 22,
      over: false,
    },
  ];
  // The heads with no id carry the lowest score, as greedy-scores writes them.
  for (const row of rows)
    row.heads = row.heads.map(([score, id]) => [id === none ? -3.4028234663852886e38 : score, id]);
  const state = await decodeState(rig, {
    beams: 1,
    newRows: 6,
    vocabulary: 64,
    stopIds: [50, 7],
    items: rows.map(({ maxNew = 5, before = 0, done = false }) => ({
      settings: { ...plain, maxNew },
      generated: before,
      done,
    })),
  });
  const heads = rows.flatMap((row) => row.heads.flatMap(([score, id]) => [floatBits(score), id]));
  const best = await rig.tensor("best", [rows.length, 3, 2], heads, "u32");
  const endedBefore = await rig.read(state.ended);
  const choiceBefore = await rig.read(state.choice);
  await rig.run((k) => {
    greedyStep(k, best, state);
    return [];
  });
  const progress = await rig.read(state.progress);
  const choice = await rig.read(state.choice);
  const ended = await rig.read(state.ended);
  for (const [i, { heads, before = 0, done = false, token, over }] of rows.entries()) {
    const record = [...ended.subarray(i * 9, (i + 1) * 9)];
    const old = [...endedBefore.subarray(i * 9, (i + 1) * 9)];
    assert.deepEqual([...progress.subarray(3 * i, 3 * i + 2)], [done ? before : before + 1, over ? 1 : 0], `row ${i}`);
    const chosen = done ? [...choiceBefore.subarray(2 * i, 2 * i + 2)] : [token, 0];
    assert.deepEqual([...choice.subarray(2 * i, 2 * i + 2)], chosen, `row ${i}`);
    const score = Math.max(...heads.map(([each]) => each));
    const ids = old.slice(3).map((value, t) => (t === before ? token : value));
    assert.deepEqual(record, done ? old : [1, floatBits(score), before + 1, ...ids], `row ${i}`);
  }
});

test("rows beyond a workgroup", async () => {
  const count = 19;
  const state = await decodeState(rig, {
    beams: 1,
    newRows: 2,
    vocabulary: 64,
    stopIds: [],
    items: Array.from({ length: count }, () => ({ settings: plain })),
  });
  const heads = Array.from({ length: count }, (_, i) => [floatBits(i), i, floatBits(i + (i % 2)), i + 30]).flat();
  const best = await rig.tensor("best", [count, 2, 2], heads, "u32");
  await rig.run((k) => {
    greedyStep(k, best, state);
    return [];
  });
  const choice = await rig.read(state.choice);
  assert.deepEqual(
    [...choice].filter((_, i) => i % 2 === 0),
    Array.from({ length: count }, (_, i) => (i % 2 === 1 ? i + 30 : i)),
  );
});
