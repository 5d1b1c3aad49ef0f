import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { inOrder } from "../../src/cli/in-order.ts";

test("results come in the order of the items, whichever is done first", async () => {
  const emitted: number[] = [];
  await inOrder(
    [30, 1, 20, 2, 10],
    3,
    async (milliseconds) => {
      await delay(milliseconds);
      return milliseconds;
    },
    (result) => {
      emitted.push(result);
    },
  );
  assert.deepEqual(emitted, [30, 1, 20, 2, 10]);
});

test("no more than the limit is under way, and as much as the limit is", async () => {
  let underWay = 0;
  let most = 0;
  await inOrder(
    Array.from({ length: 20 }, (_, i) => i),
    4,
    async () => {
      underWay += 1;
      most = Math.max(most, underWay);
      await delay(2);
      underWay -= 1;
    },
    () => {},
  );
  assert.equal(most, 4);
});

test("a result is handed over while later items are still worked on", async () => {
  let release = () => {};
  const blocked = new Promise<void>((resolve) => {
    release = resolve;
  });
  const emitted: string[] = [];
  await inOrder(
    ["first", "second"],
    2,
    async (item) => {
      if (item === "second") await blocked;
      return item;
    },
    (item) => {
      emitted.push(item);
      if (item === "first") release(); // would never be reached if results waited for all items
    },
  );
  assert.deepEqual(emitted, ["first", "second"]);
});

test("a rejection stops the start of further items and is thrown after what is under way", async () => {
  const started: number[] = [];
  const finished: number[] = [];
  const work = async (item: number) => {
    started.push(item);
    if (item === 1) throw new Error("lost device");
    await delay(5);
    finished.push(item);
  };
  await assert.rejects(
    inOrder([0, 1, 2, 3, 4, 5], 3, work, () => {}),
    /lost device/,
  );
  assert.deepEqual(started, [0, 1, 2, 3]);
  assert.deepEqual(finished.sort(), [0, 2, 3]);
});
