// The bench of kernels at tiny sizes: what a row holds, how sides take turns, what is refused. The peer is a stand-in.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, test } from "node:test";
import { attended, decoding, normed, optLayer, product, vitLayer } from "../../bench/kernels/comparisons.ts";
import type { PeerForm } from "../../bench/kernels/graphs.ts";
import { leastMilliseconds, measureLimits } from "../../bench/kernels/limits.ts";
import { type Comparison, compare, inTurns, type Setting } from "../../bench/kernels/measure.ts";
import { onnxModel } from "../../bench/kernels/onnx-model.ts";
import { Weights } from "../../bench/kernels/ours.ts";
import { PeerError, type PeerSide } from "../../bench/kernels/peer.ts";
import { randomBytesOf } from "../../bench/kernels/random-values.ts";
import { optShape, vitShape } from "../../bench/kernels/shapes.ts";
import { table } from "../../src/cli/bench.ts";
import { openGpu } from "../../src/gpu/device.ts";
import { fromF16Bits, toF16Bits } from "../kernels/harness.ts";

const gpu = await openGpu({ nap: true, bindingLimit: 4096 });
after(() => gpu.close());

const limits = { flopsPerSecond: 1e9, bytesPerSecond: 1e9 };
const setting: Setting = { peer: null, limits, rounds: { warmUp: 1, timed: 3 }, tell: () => {} };

const tiny: Comparison[] = [
  product(gpu, "matmul vit-g", "f32", 5, 12, 36),
  product(gpu, "matmul vit-g", "f16", 5, 12, 36),
  product(gpu, "matvec opt-2.7b", "f16", 1, 64, 56),
  attended(gpu, "attention 5x2x4", { queryTokens: 5, keyTokens: 5, heads: 2, headWidth: 4 }),
  decoding(gpu, 6, optShape(8, 2, 16, 5)),
  normed(gpu, 3, 8),
  vitLayer(gpu, "layer vit-g f32", vitShape(5, 8, 2, 16), "f32"),
  vitLayer(gpu, "layer vit-g f16", vitShape(5, 8, 2, 16), "f16"),
  optLayer(gpu, "layer opt-2.7b f16", optShape(8, 2, 16, 5)),
];

test("every comparison gives a row, and the rows a table, without a peer", async () => {
  const before = gpu.allocatedBytes;
  const rows = [];
  for (const each of tiny) rows.push(await compare(each, setting));
  for (const row of rows) {
    assert.deepEqual(
      { peer: row.peer, ratio: row.ratio, cpu: row.cpu, peerFirst: row.peerFirst, unit: row.unit },
      { peer: null, ratio: null, cpu: null, peerFirst: null, unit: "ms" },
    );
    for (const value of [row.ours, row.ofLimit, row.first]) assert.ok(Number(value) > 0, `${row.name}: ${value}`);
  }
  assert.deepEqual(
    rows.slice(0, 4).map(({ name }) => name),
    ["matmul vit-g f32 5x12x36", "matmul vit-g f16 5x12x36", "matvec opt-2.7b f16 64x56", "attention 5x2x4"],
  );
  const lines = table(rows);
  assert.match(lines[0] ?? "", /^name +ours +peer +unit +ratio +of limit +first ms$/);
  assert.equal(lines.length, rows.length + 1);
  // Scratch stays with the pool, weights do not.
  assert.ok(gpu.allocatedBytes < before + 64 * 1024, `${gpu.allocatedBytes - before} bytes more`);
});

/** A side whose runs take these milliseconds one after another, and are noted. */
function fakeSide(name: string, times: readonly number[], noted: string[], sample = [0]): PeerSide {
  let runs = 0;
  return {
    first: 100,
    sample,
    gone: false,
    run: async () => {
      noted.push(name);
      return times[runs++ % times.length] ?? 0;
    },
    close: async () => {
      noted.push(`${name} closed`);
    },
  };
}

test("sides take turns, forwards and backwards, and warm-up is left out of the median", async () => {
  const noted: string[] = [];
  const [ours, peer] = [fakeSide("ours", [90, 3, 1, 2], noted), fakeSide("peer", [80, 30, 10, 20], noted)];
  const medians = await inTurns([ours, peer], { warmUp: 1, timed: 3 });
  assert.equal(noted.join(" "), "peer ours ours peer peer ours ours peer");
  assert.deepEqual([medians.get(ours), medians.get(peer)], [2, 20]);
});

/** A comparison of stand-ins with these forms of the peer, by name. */
function faked(sample: readonly number[], noted: string[]): Comparison {
  const [{ forms: [form] = [] } = { forms: [] }] = tiny;
  assert.ok(form);
  const { graph } = form;
  const forms = ["slow", "refused", "quick"].map((name): PeerForm => ({ name, graph }));
  return {
    name: "x",
    work: { flops: 4e6, bytes: 1e6 },
    repeats: 2,
    ours: async () => fakeSide("ours", [8], noted, [...sample]),
    forms,
    tolerance: 0.1,
  };
}

const fakePeer = (noted: string[]): Setting["peer"] => ({
  async open({ name }, provider) {
    if (name === "refused") throw new PeerError("no such operator");
    const milliseconds = provider === "cpu" ? 4 : name === "slow" ? 200 : 80;
    return fakeSide(`${name} ${provider}`, [milliseconds], noted, [1, 2]);
  },
});

test("the peer's fastest form counts, what it refuses is told, and all of it is closed", async () => {
  const noted: string[] = [];
  const told: string[] = [];
  const peer = fakePeer(noted);
  const row = await compare(faked([1, 2.05], noted), { ...setting, peer, tell: (line) => told.push(line) });
  assert.deepEqual(row, {
    name: "x",
    ours: 4,
    peer: 40,
    unit: "ms",
    ratio: 10,
    cpu: 2,
    ofLimit: 1,
    first: 100,
    peerFirst: 100,
    peerSetting: "quick",
  });
  assert.deepEqual(told, ["bench: x: refused on webgpu: no such operator"]);
  const closed = noted.filter((line) => line.endsWith("closed")).sort();
  assert.deepEqual(closed, ["ours closed", "quick webgpu closed", "slow cpu closed", "slow webgpu closed"]);
});

/** Dies in its third run, when its forms have been tried. */
const dyingPeer: Setting["peer"] = {
  async open(form, provider) {
    const side = fakeSide(`${form.name} ${provider}`, [80], [], [1, 2]);
    let runs = 0;
    return {
      ...side,
      run: async () => {
        if (++runs > 2) throw new PeerError("its process ended");
        return side.run();
      },
      close: async () => {
        throw new PeerError("its process ended");
      },
    };
  },
};

test("a peer that dies in the timed runs leaves our figure alone in the row", async () => {
  const noted: string[] = [];
  const told: string[] = [];
  const [form] = faked([1, 2], noted).forms;
  assert.ok(form);
  const one = { ...faked([1, 2], noted), forms: [form] };
  const row = await compare(one, { ...setting, peer: dyingPeer, tell: (line) => told.push(line) });
  const { ours, peer, ratio, cpu, peerFirst, peerSetting } = row;
  assert.deepEqual(
    { ours, peer, ratio, cpu, peerFirst, peerSetting },
    {
      ...{ ours: 4, peer: null, ratio: null, cpu: null, peerFirst: null, peerSetting: null },
    },
  );
  assert.deepEqual(told, ["bench: x: in the timed runs: its process ended"]);
  assert.equal(noted.at(-1), "ours closed");
});

test("a peer that does not come back after a form took it down leaves our figure alone", async () => {
  let opened = 0;
  const peer: Setting["peer"] = {
    async open({ name }, provider) {
      if (provider === "cpu" || ++opened > 3) throw new PeerError("no answer");
      return { ...fakeSide(name, [80], [], [1, 2]), gone: true };
    },
  };
  const told: string[] = [];
  const row = await compare(faked([1, 2], []), { ...setting, peer, tell: (line) => told.push(line) });
  assert.deepEqual([row.ours, row.peer, row.peerSetting], [4, null, null]);
  assert.ok(told.includes("bench: x: slow on webgpu, again: no answer"), told.join("\n"));
});

test("a form that computes something else is told, and another is taken", async () => {
  const told: string[] = [];
  const quickIsWrong: Setting["peer"] = {
    open: async ({ name }) => fakeSide(name, [name === "slow" ? 200 : 80], [], name === "slow" ? [1, 2] : [1, 3]),
  };
  const row = await compare(faked([1, 2], []), { ...setting, peer: quickIsWrong, tell: (line) => told.push(line) });
  assert.deepEqual([row.peer, row.peerSetting], [100, "slow"]);
  assert.ok(told.some((line) => /quick on webgpu: expected quick to give our results within 0.1/.test(line)));
});

test("a peer that computes something else is no comparison", async () => {
  const noted: string[] = [];
  await assert.rejects(
    compare(faked([1, 2.2], noted), { ...setting, peer: fakePeer(noted) }),
    /no form on webgpu computes what we do: expected quick to give our results within 0.1, got 1, 2 for 1, 2.2/,
  );
});

test("the limits of this adapter are measured", async () => {
  const { flopsPerSecond, bytesPerSecond } = await measureLimits(gpu);
  assert.ok(flopsPerSecond > 1e8 && flopsPerSecond < 1e15, `${flopsPerSecond}`);
  assert.ok(bytesPerSecond > 1e6 && bytesPerSecond < 1e14, `${bytesPerSecond}`);
  assert.equal(leastMilliseconds({ flops: 5e6, bytes: 3e6 }, limits), 5);
  assert.equal(leastMilliseconds({ flops: 5e6, bytes: 7e6 }, limits), 7);
});

test("random values are the same from wherever they are read, and f16 is rounded to nearest even", () => {
  const values = { seed: 3, scale: 2 };
  const all = new Float32Array(randomBytesOf("f32", 70_000, values).slice().buffer);
  const part = new Float32Array(randomBytesOf("f32", 10_000, values, 60_000).slice().buffer);
  assert.deepEqual(part, all.slice(60_000));
  assert.ok(Math.max(...all.slice(0, 1000)) > 1.9 && Math.min(...all.slice(0, 1000)) < -1.9);
  for (const scale of [2, 1e-5]) {
    const exact = new Float32Array(randomBytesOf("f32", 5000, { seed: 3, scale }).slice().buffer);
    const bits = new Uint16Array(randomBytesOf("f16", 5000, { seed: 3, scale }).slice().buffer);
    assert.deepEqual(
      Array.from(bits, fromF16Bits),
      Array.from(exact, (value) => fromF16Bits(toF16Bits(value))),
    );
  }
});

test("a matrix beyond the binding limit comes in segments of the same values", async () => {
  const weights = new Weights(gpu);
  const shape = { inputs: 64, columns: 56, seed: 5 };
  const { segments } = await weights.linear(shape, "f16");
  assert.deepEqual(
    segments.map(({ from, width }) => [from, width]),
    [
      [0, 28],
      [28, 28],
    ],
  );
  const whole = new Uint16Array(randomBytesOf("f16", 64 * 56, { seed: 5, scale: Math.sqrt(3 / 64) }).slice().buffer);
  for (const { weight, from, width } of segments) {
    const own = new Uint16Array(await gpu.read(weight));
    for (const row of [0, 1, 63]) {
      assert.deepEqual(
        own.slice(row * width, (row + 1) * width),
        whole.slice(row * 56 + from, row * 56 + from + width),
      );
    }
  }
  weights.free();
});

test("model files stay as onnxruntime-node 1.30 has read them", () => {
  const digests = tiny.flatMap(({ forms }) =>
    forms.map(
      ({ name, graph }) => `${name} ${createHash("sha256").update(onnxModel(graph)).digest("hex").slice(0, 12)}`,
    ),
  );
  // It loaded each of them, and gave the values that our kernels give.
  assert.deepEqual(digests, [
    "MatMul f32 2f1c2a233b29",
    "Gemm f32 f132379ae6e1",
    "MatMul f16 d51cd250f073",
    "Gemm f16 101c53a5bf70",
    "MatMul f32 2f1c2a233b29",
    "MatMul f16 358e03ecc7a2",
    "Gemm f16 38eb129abaa8",
    "MatMul f32 e607ed1ea741",
    "MultiHeadAttention f32 2ecbf6431849",
    "plain operators f32 8561cb71d4b5",
    "MultiHeadAttention f32 e79611dd423c",
    "plain operators f32 dce33c9cca34",
    "MultiHeadAttention f16 29b3b7839bf9",
    "LayerNormalization f16 bc4b6c817146",
    "LayerNormalization f32 11e815d93618",
    "whole layer f32, plain attention 7c337fbe8ac9",
    "whole layer f32 a6853b92bbff",
    "whole layer f16, plain attention 436d7272980a",
    "whole layer f16, attention f32 4f4d88a8e5a2",
    "whole layer f32, plain attention 7c337fbe8ac9",
    "whole layer f32 a6853b92bbff",
    "whole layer f16 96608d4bab58",
    "whole layer f32 a7ba7e1c094d",
  ]);
});
