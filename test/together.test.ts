// Results in order, and the first failure in order.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as after } from "node:timers/promises";
import { together } from "../src/together.ts";

test("results come in order, and of several failures the first in order is thrown, after all have ended", async () => {
  assert.deepEqual(await together([after(5, "slow"), Promise.resolve("quick")]), ["slow", "quick"]);
  let ended = 0;
  const fail = async (milliseconds: number, message: string) => {
    await after(milliseconds);
    ended++;
    throw new RangeError(message);
  };
  const both = together([Promise.resolve(1), fail(20, "first in order"), fail(1, "first in time")]);
  await assert.rejects(both, { name: "RangeError", message: "first in order" });
  assert.equal(ended, 2);
});
