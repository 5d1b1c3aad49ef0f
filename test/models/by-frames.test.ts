// Programs for numbers of frames: one for each, a bounded number of them, and none closed under its batches.

import assert from "node:assert/strict";
import { test } from "node:test";
import { programByFrames } from "../../src/models/by-frames.ts";
import type { Activation } from "../../src/stages.ts";

/** A row about so many frames of two prompt rows each. */
function row(frames: number): { readonly prompt: Activation } {
  return { prompt: { kind: "prompt", type: "f32", shape: [2 * frames, 1], bytes: new Uint8Array(8 * frames) } };
}

/** Programs that tell when they are made and closed. */
function watched() {
  const open = new Set<number>();
  let made = 0;
  const program = programByFrames<{ readonly prompt: Activation }, number>(2, (frames) => {
    made++;
    open.add(frames);
    return {
      name: "generate",
      maxRows: () => 8,
      key: () => "all",
      start: () => ({ step: async () => [{ row: 0, value: frames }], release() {} }),
      close() {
        assert.ok(open.delete(frames), `${frames} was open`);
      },
    };
  });
  return { program, open, made: () => made };
}

test("the least recently used programs are closed, that of one frame never", async () => {
  const { program, open, made } = watched();
  for (const frames of [2, 3, 4, 5, 2, 6, 7, 8]) {
    assert.equal(program.key(row(frames)), `${frames} frames: all`);
    const batch = program.start([row(frames)]);
    assert.deepEqual(await batch.step(new Set()), [{ row: 0, value: frames }]);
    batch.release();
    assert.ok(open.size <= 4, [...open].join(" "));
  }
  assert.deepEqual([...open].sort(), [1, 6, 7, 8]);
  // 2 had been closed in between.
  assert.equal(made(), 1 + 8);
  program.close();
  assert.equal(open.size, 0);
});

test("a program with a batch under way stays, and goes when that is done", () => {
  const { program, open } = watched();
  const batches = [2, 3, 4, 5, 6].map((frames) => program.start([row(frames)]));
  assert.deepEqual([...open], [1, 2, 3, 4, 5, 6]);
  batches[0]?.release();
  batches[3]?.release();
  assert.deepEqual([...open], [1, 3, 4, 6], "down to three besides that of one frame");
  batches[1]?.release();
  assert.deepEqual([...open], [1, 3, 4, 6], "within bounds nothing is closed");
});
