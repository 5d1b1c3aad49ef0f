import assert from "node:assert/strict";
import { test } from "node:test";
import { formatDuration, Progress } from "../../src/cli/progress.ts";

/** A stream that keeps what is written, and a clock that is set by hand. */
function stage(isTTY: boolean, columns = 80) {
  const written: string[] = [];
  const clock = { milliseconds: 0 };
  const stream = { isTTY, columns, write: (text: string) => written.push(text) };
  const make = (total: number) => new Progress(total, { noun: "images", stream, now: () => clock.milliseconds });
  return { written, clock, make };
}

test("a terminal gets one bar with counts, failures, rate and time left", () => {
  const { written, clock, make } = stage(true);
  const progress = make(10);
  clock.milliseconds = 2_000;
  progress.set(3, 1);
  assert.deepEqual(written, [
    `\r\u001b[K[${"#".repeat(11)}${"-".repeat(17)}] 4 of 10 images, 1 failed, 2.0 images/s, 3 s left`,
  ]);
  progress.clear();
  assert.equal(written.at(-1), "\r\u001b[K");
  clock.milliseconds = 5_000;
  progress.set(9, 1);
  progress.finish();
  assert.equal(written.at(-1), "10 of 10 images, 1 failed in 5 s, 2.0 images/s\n");
});

test("a bar is not drawn faster than it can be read, and fits the terminal", () => {
  const { written, clock, make } = stage(true, 40);
  const progress = make(1000);
  for (let i = 1; i <= 100; i += 1) {
    clock.milliseconds = i * 10;
    progress.add(false);
  }
  assert.equal(written.length, 10);
  for (const text of written) assert.equal(text.replace("\r\u001b[K", "").length <= 40, true, text);
});

test("elsewhere there are plain lines, seconds apart", () => {
  const { written, clock, make } = stage(false);
  const progress = make(100);
  for (let i = 1; i <= 60; i += 1) {
    clock.milliseconds = i * 200;
    progress.add(false);
  }
  assert.deepEqual(written, [
    "25 of 100 images, 5.0 images/s, 15 s left\n",
    "50 of 100 images, 5.0 images/s, 10 s left\n",
  ]);
});

test("a few items need no progress", () => {
  for (const isTTY of [true, false]) {
    const { written, clock, make } = stage(isTTY);
    const progress = make(3);
    for (let i = 1; i <= 3; i += 1) {
      clock.milliseconds = i * 10_000;
      progress.add(false);
    }
    progress.finish();
    assert.deepEqual(written, []);
  }
});

test("what was done before counts as done but not for the rate", () => {
  const { written, clock, make } = stage(false);
  const progress = make(100);
  progress.resume(50, 0);
  clock.milliseconds = 10_000;
  progress.set(60, 0);
  assert.deepEqual(written, ["60 of 100 images, 1.0 images/s, 40 s left\n"]);
});

test("durations read as people say them", () => {
  assert.equal(formatDuration(0.4), "0 s");
  assert.equal(formatDuration(59.4), "59 s");
  assert.equal(formatDuration(185), "3 min 05 s");
  assert.equal(formatDuration(7_620), "2 h 07 min");
});
