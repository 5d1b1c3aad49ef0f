// The GPU core on a real adapter: names checked, lists replayed, scratch shared without harm, errors that name things.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { measureEncodeCost } from "../../src/gpu/encode-cost.ts";
import { KernelError, ShapeError } from "../../src/gpu/errors.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import type { Launch, Recorder } from "../../src/gpu/recorder.ts";
import type { Tensor } from "../../src/gpu/tensor.ts";
import { view } from "../../src/gpu/view.ts";
import { expectClose, openRig, randomValues } from "../kernels/harness.ts";

process.env.BLIPFLEET_SHADERS = join(packageRoot, "test/gpu/shaders");
const rig = await openRig();
const { gpu } = rig;
const exact = { absolute: 0, relative: 0, reason: "small whole numbers" };
const zero = await rig.tensor("zero", [1], [0]);

function scaleAdd(k: Recorder, x: Tensor, scale: number, constants: Launch["constants"] = {}): Tensor {
  const [count = 0] = x.shape;
  const y = k.scratch("y", [count]);
  k.launch("scale-add", {
    inputs: { x, bias: zero },
    outputs: { y },
    params: { count, scale },
    constants,
    workgroups: [Math.ceil(count / 8)],
  });
  return y;
}

test("a list gives the same result at every replay, and reads current inputs", async () => {
  const x = gpu.alloc("x", [5], "f32");
  const list = await gpu.record("double twice", (k) => scaleAdd(k, scaleAdd(k, x, 2), 2));
  for (const first of [1, 7]) {
    await gpu.upload(x, new Uint8Array(Float32Array.of(first, 2, 3, 4, 5).buffer));
    const [bytes] = await gpu.submit([list], { reads: [list.result] });
    expectClose(new Float32Array(bytes as ArrayBuffer), [4 * first, 8, 12, 16, 20], exact);
  }
  list.destroy();
  gpu.free(x);
});

test("constants set opening lines and overrides", async () => {
  const x = await rig.tensor("x", [3], [1, 2, 3]);
  const [plain, squared, wide] = await rig.run((k) => [
    scaleAdd(k, x, 1),
    scaleAdd(k, x, 1, { SQUARE: "true", extra: 1 }),
    scaleAdd(k, x, 1, { LANES: 16 }),
  ]);
  expectClose(plain, [1, 2, 3], exact);
  expectClose(squared, [4, 9, 16], exact);
  expectClose(wide, [1, 2, 3], exact);
});

test("scratch whose lives overlap never shares a buffer, and the rest does", async () => {
  const x = await rig.tensor(
    "x",
    [1000],
    Float32Array.from({ length: 1000 }, (_, i) => i % 17),
  );
  const before = gpu.allocatedBytes;
  const list = await gpu.record("chain", (k) => {
    const kept = scaleAdd(k, x, 3);
    let y = kept;
    for (let i = 0; i < 20; i++) y = scaleAdd(k, y, i % 2 === 0 ? 2 : 0.5);
    return { kept, y };
  });
  const buffers = (gpu.allocatedBytes - before) / 4096;
  // Two results and two alternating scratch buffers of one 4096-byte class, beside the params.
  assert.ok(buffers >= 4 && buffers < 5, `expected four buffers for 21 tensors, got ${buffers}`);
  const [kept, y] = await gpu.submit([list], { reads: [list.result.kept, list.result.y] });
  const expected = Float32Array.from({ length: 1000 }, (_, i) => 3 * (i % 17));
  expectClose(new Float32Array(kept as ArrayBuffer), expected, exact);
  expectClose(new Float32Array(y as ArrayBuffer), expected, exact);
  list.destroy();
  assert.equal(gpu.allocatedBytes, before);
});

test("random graphs of launches give what a plain loop gives", async () => {
  for (let seed = 0; seed < 8; seed++) {
    const draws = randomValues(400, seed);
    let at = 0;
    const draw = (below: number) => Math.floor((((draws[at++ % 400] ?? 0) + 1) / 2) * below);
    const sizes = [3, 90, 700];
    const x = await Promise.all(sizes.map((size) => rig.tensor("x", [size], randomValues(size, seed))));
    const values: { size: number; expected: Float32Array }[] = sizes.map((size) => ({
      size,
      expected: randomValues(size, seed),
    }));
    const list = await gpu.record(`graph ${seed}`, (k) => {
      const tensors: Tensor[] = [...x];
      for (let i = 0; i < 40; i++) {
        const from = draw(tensors.length);
        const scale = draw(2) === 0 ? 2 : -1;
        tensors.push(scaleAdd(k, tensors[from] as Tensor, scale));
        const { size, expected } = values[from] as { size: number; expected: Float32Array };
        values.push({ size, expected: expected.map((value) => value * scale) });
      }
      return { kept: [3, 17, 29, 42].map((i) => tensors[i] as Tensor) };
    });
    const reads = await gpu.submit([list, list], { reads: list.result.kept });
    [3, 17, 29, 42].forEach((i, n) => {
      expectClose(new Float32Array(reads[n] as ArrayBuffer), values[i]?.expected ?? [], exact);
    });
    list.destroy();
  }
});

test("two recordings share scratch but not results", async () => {
  const x = await rig.tensor("x", [1000], new Float32Array(1000).fill(1));
  const make = (name: string, scale: number) => gpu.record(name, (k) => scaleAdd(k, scaleAdd(k, x, scale), 1));
  const a = await make("a", 2);
  const before = gpu.allocatedBytes;
  const b = await make("b", 3);
  assert.equal(gpu.allocatedBytes - before, 4096 + 512, "one result and two params blocks");
  const [left, right] = await gpu.submit([a, b], { reads: [a.result, b.result] });
  assert.equal(new Float32Array(left as ArrayBuffer)[999], 2);
  assert.equal(new Float32Array(right as ArrayBuffer)[999], 3);
  a.destroy();
  const [again] = await gpu.submit([b], { reads: [b.result] });
  assert.equal(new Float32Array(again as ArrayBuffer)[0], 3);
  b.destroy();
});

test("one list k times in one submit takes k steps", async () => {
  const state = gpu.alloc("state", [1], "u32");
  const seen = gpu.alloc("seen", [8], "u32");
  const step = await gpu.record("step", (k) => {
    k.launch("advance", { inputs: {}, outputs: { state, seen }, workgroups: [1] });
  });
  await gpu.submit([step, step, step]);
  const [bytes] = await gpu.submit([step], { reads: [seen] });
  assert.deepEqual([...new Uint32Array(bytes as ArrayBuffer)], [100, 101, 102, 103, 0, 0, 0, 0]);
});

test("wrong names, shapes and counts are refused by name", async () => {
  const x = await rig.tensor("x", [8], new Float32Array(8));
  const refuses = (launch: Partial<Launch>, expected: RegExp) =>
    assert.rejects(
      gpu.record("wrong", (k) =>
        k.launch("scale-add", {
          inputs: { x, bias: zero },
          outputs: { y: k.scratch("y", [8]) },
          params: { count: 8, scale: 1 },
          workgroups: [1],
          ...launch,
        }),
      ),
      (error: unknown) => error instanceof KernelError && expected.test(error.message),
      String(expected),
    );
  await refuses(
    { inputs: { x, gain: zero } },
    /wrong: shaders\/scale-add.wgsl: expected inputs .*missing bias; unexpected gain/,
  );
  await refuses({ outputs: {} }, /expected outputs .*missing y/);
  await refuses({ params: { count: 8 } }, /expected params .*missing scale/);
  await refuses({ params: { count: 8.5, scale: 1 } }, /expected params.count to be u32, got 8.5/);
  await refuses({ params: { count: -1, scale: 1 } }, /expected params.count to be u32, got -1/);
  await refuses({ constants: { TILES: 4 } }, /expected constants among \(LANES, SQUARE, extra\), got TILES = 4/);
  await refuses({ workgroups: [65536] }, /expected workgroup counts of 1 to 65535, got 65536/);
  await refuses({ workgroups: [0] }, /expected workgroup counts/);
  await refuses({ outputs: { y: x } }, /got input x and output y in x/);
  await refuses({ outputs: { y: view(x, [4]) } }, /got input x and output y in x/);
  await assert.rejects(
    gpu.record("unwritten", (k) => scaleAdd(k, k.scratch("never", [8]), 1)),
    /expected x to be written before it is read, got new scratch never/,
  );
  await assert.rejects(
    gpu.record("unwritten result", (k) => k.scratch("never", [8])),
    /expected its result never to be written/,
  );
  assert.throws(() => view(x, [9]), ShapeError);
});

test("a tensor above the binding limit is refused with both numbers", async () => {
  const small = await openRig({ bindingLimit: 1024 });
  const x = small.gpu.alloc("x", [257], "f32");
  const bias = small.gpu.alloc("bias", [1], "f32");
  await assert.rejects(
    small.gpu.record("limit", (k) =>
      k.launch("scale-add", {
        inputs: { x, bias },
        outputs: { y: k.scratch("y", [257]) },
        params: { count: 257, scale: 1 },
        workgroups: [33],
      }),
    ),
    /expected x to fit a binding of 1024 bytes, got x \(257\) of 1028/,
  );
});

test("a compile error names file, line and column", async () => {
  await assert.rejects(
    gpu.record("broken", (k) => {
      k.launch("broken", { inputs: {}, outputs: { y: k.scratch("y", [1]) }, workgroups: [1] });
    }),
    /^KernelError: shaders\/broken.wgsl:5:10 .*nothing/,
  );
  await assert.rejects(
    gpu.record("absent", (k) => k.launch("absent", { inputs: {}, outputs: {}, workgroups: [1] })),
    /shaders\/absent.wgsl: expected a readable file/,
  );
});

test("encoding anew costs more than replaying, and both are counted per dispatch", async () => {
  const x = await rig.tensor("x", [8], new Float32Array(8));
  const list = await gpu.record("costs", (k) => {
    let y: Tensor = x;
    for (let i = 0; i < 200; i++) y = scaleAdd(k, y, 1);
    return y;
  });
  const cost = await measureEncodeCost(gpu, list, 9);
  assert.equal(cost.dispatches, 200);
  assert.ok(cost.replayed > 0 && cost.replayed < cost.fresh, JSON.stringify(cost));
  process.stderr.write(`encode cost in µs per dispatch: ${JSON.stringify(cost)}\n`);
  list.destroy();
});

test("uploads in pieces and at offsets, and odd tails, arrive", async () => {
  const count = 1.25 * 1024 * 1024 + 3;
  const x = gpu.alloc("x", [count], "u32");
  const bytes = new Uint8Array(Uint32Array.from({ length: count }, (_, i) => i).buffer);
  await gpu.upload(x, bytes);
  await gpu.upload(x, Uint8Array.of(1, 2, 3, 4, 5), 8);
  const read = new Uint32Array(await gpu.read(x));
  assert.deepEqual([...read.subarray(0, 5)], [0, 1, 0x04030201, 5, 4]);
  assert.equal(read[count - 1], count - 1);
  await assert.rejects(gpu.upload(x, bytes, 4), ShapeError);
  gpu.free(x);
});

test("copies fill the beginnings of other tensors, behind what was submitted before", async () => {
  const from = gpu.alloc("from", [3], "f32");
  const to = gpu.alloc("to", [5], "f32");
  await gpu.upload(from, new Uint8Array(Float32Array.of(1, 2, 3).buffer));
  await gpu.upload(to, new Uint8Array(new Float32Array(5).fill(9).buffer));
  gpu.copy([[from, to]]);
  assert.deepEqual([...new Float32Array(await gpu.read(to))], [1, 2, 3, 9, 9]);
  const halves = gpu.alloc("halves", [2], "f16");
  for (const refused of [to, halves]) assert.throws(() => gpu.copy([[refused, from]]), ShapeError);
  for (const tensor of [from, to, halves]) gpu.free(tensor);
});

test("the harness finds writes past the end and elements left out", async () => {
  const one = (shader: string) => (k: Recorder) => {
    const y = k.scratch("y", [5]);
    k.launch(shader, { inputs: {}, outputs: { y }, workgroups: [1] });
    return [y];
  };
  await assert.rejects(rig.run(one("past-end")), /y \(5\): a kernel wrote 0x3f800000 0 words after the end of it/);
  const fresh = await openRig();
  const [y] = await fresh.run(one("leaves-out"));
  assert.throws(() => expectClose(y, [1, 1, 1, 1, 1], exact), /1 of 5 values .* worst at 4: got NaN, expected 1/);
});
