// Bytes of WebAssembly that V8 takes and runs as written.

import assert from "node:assert/strict";
import { test } from "node:test";
import { f32, i32, loop, WasmFunction, wasmMemory } from "../../src/search/wasm.ts";

test("numbers of every length, arithmetic, loops, stores", () => {
  const memory = wasmMemory(1);
  assert.equal(memory.buffer.byteLength, 65536);
  const program = new WasmFunction({ to: "i32", count: "i32", scale: "f32" });
  const { to, count, scale } = program.parameters;
  const { counter, sum } = program.locals("i32", ["counter", "sum"]);
  const numbers = [0, 1, -1, 63, 64, -64, -65, 127, 128, 8191, 8192, -8193, 2 ** 31 - 1, -(2 ** 31)];
  const run = program.compile(
    [
      ...numbers.flatMap((value, i) => i32.store(to.get, i32.const(value), 4 * i)),
      ...loop(counter, count.get, 3, sum.set(i32.add(sum.get, i32.mul(counter.get, counter.get)))),
      ...i32.store(to.get, sum.get, 200),
      ...f32.store(to.get, f32.max(scale.get, f32.const(-0.1)), 204),
    ],
    memory,
  );
  run(1000, 10, -7.5);
  assert.deepEqual([...new Int32Array(memory.buffer, 1000, numbers.length)], numbers);
  assert.equal(new Int32Array(memory.buffer, 1200, 1)[0], 9 + 36 + 81);
  assert.equal(new Float32Array(memory.buffer, 1204, 1)[0], Math.fround(-0.1));
});
