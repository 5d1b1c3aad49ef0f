import assert from "node:assert/strict";
import { test } from "node:test";
import { givenStep } from "../../src/kernels/given-step.ts";
import { logSumExp } from "../../src/kernels/log-sum-exp.ts";
import { logSoftmax, type Settings } from "../reference/decoding.ts";
import { type DecodeCase, decodeState, fromFloatBits } from "./decode-rig.ts";
import { asFamily, families } from "./families.ts";
import { expectClose, openRig, randomValues } from "./harness.ts";

const rig = await openRig();
const none = 0xffffffff;
const plain: Settings = { maxNew: 3, minNew: 0, penalty: 1, lengthPenalty: 1 };

interface Item {
  /** By sequence; ids behind the end are left out. */
  readonly given: readonly (readonly number[])[];
  readonly generated?: number;
  readonly done?: boolean;
}

for (const { softwareAdapter, family } of families) {
  for (const [vocabulary, chunk, beams, shared] of [
    [5, 64, 1, true],
    [97, 32, 3, false],
    [97, 32, 3, true],
    [1030, 256, 11, false],
    [300, 64, 70, true],
  ] as const) {
    const what = `${vocabulary} ids, ${beams} sequences, ${shared ? "one row of logits for all" : "their own logits"}`;
    test(`${what}, ${family}`, async () => {
      const newRows = 4;
      const sequence = (b: number, length: number) =>
        Array.from({ length }, (_, t) => (t * 31 + b * 7 + 1) % vocabulary);
      const sequences = (add: number) => Array.from({ length: beams }, (_, b) => sequence(b, ((b + add) % 3) + 1));
      const items: Item[] = [
        { given: sequences(0) },
        { given: sequences(1), generated: 1 },
        { given: sequences(2), generated: 2 },
        { given: sequences(0), generated: 1, done: true },
      ];
      const running = Array.from({ length: beams }, (_, b) => -b / 4);
      const state: DecodeCase = {
        beams,
        newRows,
        vocabulary,
        stopIds: [],
        items: items.map(({ generated = 0, done = false }) => ({ settings: plain, generated, done, running })),
      };
      const made = await decodeState(rig, state);
      const sources = items.length * (shared ? 1 : beams);
      const logits = randomValues(sources * vocabulary, vocabulary + beams, 6).map((value) => value - 30);
      const tensor = await rig.tensor("logits", [sources, vocabulary], logits);
      const words = items.flatMap(({ given }) =>
        given.flatMap((ids) => Array.from({ length: newRows }, (_, t) => ids[t] ?? none)),
      );
      const given = await rig.tensor("given", [items.length * beams, newRows], words, "u32");
      const choiceBefore = await rig.read(made.choice);
      const cut = { chunk, chunks: Math.ceil(vocabulary / chunk) };
      await rig.run((k) => {
        const own = asFamily(k, softwareAdapter);
        givenStep(own, tensor, logSumExp(own, tensor, cut), given, made);
        return [];
      });
      const progress = await rig.read(made.progress);
      const choice = await rig.read(made.choice);
      for (const [i, { given: asked, generated = 0, done = false }] of items.entries()) {
        const [count, over, ...sums] = progress.subarray(i * (2 + beams), (i + 1) * (2 + beams));
        const after = done ? generated : generated + 1;
        assert.deepEqual([count, over], [after, done || after >= plain.maxNew ? 1 : 0], `item ${i}`);
        const picked = [...choice.subarray(2 * i * beams, 2 * (i + 1) * beams)];
        if (done) assert.deepEqual(picked, [...choiceBefore.subarray(2 * i * beams, 2 * (i + 1) * beams)]);
        else
          assert.deepEqual(
            picked,
            asked.flatMap((ids, b) => [ids[generated] ?? 0, b]),
            `item ${i}`,
          );
        const expected = asked.map((ids, b) => {
          const id = done ? undefined : ids[generated];
          const source = shared ? i : i * beams + b;
          const own = logits.subarray(source * vocabulary, (source + 1) * vocabulary);
          return (running[b] ?? 0) + (id === undefined ? 0 : (logSoftmax(own)[id] ?? Number.NaN));
        });
        expectClose(sums.map(fromFloatBits), expected, {
          absolute: 2e-5,
          relative: 1e-6,
          reason: "a logarithm of an f32 sum of at most some thousand terms",
        });
      }
    });
  }
}
