import assert from "node:assert/strict";
import { test } from "node:test";
import { bucket, RecordingCache, recordingKey } from "../../src/gpu/recording-cache.ts";

function values() {
  const destroyed: string[] = [];
  const make = (name: string) => async () => ({ name, destroy: () => destroyed.push(name) });
  return { destroyed, make };
}

test("an idle entry is taken again, a busy one is not shared", async () => {
  const { make } = values();
  const cache = new RecordingCache(8);
  const a = await cache.acquire("k", make("first"));
  const b = await cache.acquire("k", make("second"));
  assert.notEqual(a.value, b.value);
  a.release();
  const c = await cache.acquire("k", make("third"));
  assert.equal(c.value, a.value);
  assert.equal(cache.size, 2);
});

test("the least recently used idle entry is destroyed first, busy ones never", async () => {
  const { destroyed, make } = values();
  const cache = new RecordingCache(2);
  const busy = await cache.acquire("busy", make("busy"));
  (await cache.acquire("a", make("a"))).release();
  (await cache.acquire("b", make("b"))).release();
  assert.deepEqual(destroyed, ["a"]);
  (await cache.acquire("b", make("never"))).release();
  const c = await cache.acquire("c", make("c"));
  assert.deepEqual(destroyed, ["a", "b"]);
  const d = await cache.acquire("d", make("d"));
  assert.equal(cache.size, 3, "three busy entries live above the capacity");
  d.release();
  d.release();
  assert.deepEqual(destroyed, ["a", "b", "d"]);
  busy.release();
  c.release();
  cache.destroy();
  assert.deepEqual(destroyed.sort(), ["a", "b", "busy", "c", "d"]);
});

test("a failed recording leaves no entry", async () => {
  const cache = new RecordingCache(2);
  await assert.rejects(
    cache.acquire("k", () => Promise.reject(new Error("does not compile"))),
    /does not compile/,
  );
  assert.equal(cache.size, 0);
});

test("keys differ by every size, buckets are powers of two", () => {
  const keys = [
    recordingKey("p", { rows: 1 }),
    recordingKey("q", { rows: 1 }),
    recordingKey("p", { rows: 2 }),
    recordingKey("p", { rows: 1, text: 8 }),
    recordingKey("p", { rows: 1, cache: 8 }),
  ];
  assert.equal(new Set(keys).size, keys.length);
  assert.deepEqual(
    [1, 2, 3, 5, 8, 9].map((count) => bucket(count)),
    [1, 2, 4, 8, 8, 16],
  );
  assert.deepEqual(
    [1, 8, 9].map((count) => bucket(count, 8)),
    [8, 8, 16],
  );
});
