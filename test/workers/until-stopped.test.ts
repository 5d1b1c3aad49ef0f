import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { untilStopped } from "../../src/workers/until-stopped.ts";

/** Makes 1, 2, 3 … `most`, `atOnce` of them at a time; counts what was made. */
function counter(most: number, atOnce: number) {
  const made: number[] = [];
  const make = async (onIds: (ids: readonly number[]) => void, signal: AbortSignal) => {
    while (made.length < most) {
      await delay(1);
      signal.throwIfAborted();
      for (let n = 0; n < atOnce && made.length < most; n++) made.push(made.length + 1);
      if (made.length < most) onIds([...made]);
    }
    return made;
  };
  return { made, make };
}

/** The end is at this id; `looked` are the (length, checked) that were looked at. */
function endAt(id: number, looked: [number, number][] = []) {
  return async (ids: readonly number[], checked: number) => {
    looked.push([ids.length, checked]);
    await delay(1);
    return ids.includes(id) ? ids.indexOf(id) + 1 : null;
  };
}

test("ids up to the end, however many come at once; what makes them is stopped", async () => {
  for (const atOnce of [1, 3, 7, 100]) {
    const { made, make } = counter(1000, atOnce);
    assert.deepEqual(await untilStopped(make, endAt(5), {}), [1, 2, 3, 4, 5], `${atOnce} at once`);
    assert.ok(made.length < 1000 || atOnce === 100, `${made.length} made`);
  }
});

test("an end among the last ids, and none at all", async () => {
  for (const [end, length] of [
    [8, 8],
    [7, 7],
    [99, 8],
  ] as const) {
    const looked: [number, number][] = [];
    const told: number[] = [];
    const onIds = (ids: readonly number[]) => told.push(ids.length);
    const ids = await untilStopped(counter(8, 3).make, endAt(end, looked), { onIds });
    assert.equal(ids.length, length);
    assert.deepEqual(looked, [
      [3, 0],
      [6, 3],
      [8, 6],
    ]);
    assert.deepEqual(told, end === 99 ? [3, 6, 8] : [3, 6], "only ids that go on are told of");
  }
});

test("the caller's signal, a mistake in making and one in looking reject with their own reasons", async () => {
  const control = new AbortController();
  const endless = untilStopped(counter(1e9, 1).make, endAt(-1), { signal: control.signal });
  control.abort(new Error("not wanted any more"));
  await assert.rejects(endless, /not wanted any more/);
  const failing = untilStopped(async () => Promise.reject(new Error("no device")), endAt(1), {});
  await assert.rejects(failing, /no device/);
  const blind = untilStopped(counter(1e9, 1).make, () => Promise.reject(new Error("no tokenizer")), {});
  await assert.rejects(blind, /no tokenizer/);
});
