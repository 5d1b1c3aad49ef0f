// The overlay of where a model looked: the largest weight is the brightest place, in any aspect ratio.

import assert from "node:assert/strict";
import { test } from "node:test";
import sharp from "sharp";
import { attentionOverlay, attentionSheet } from "../../src/image/attention-overlay.ts";

function grey(width: number, height: number, level = 100) {
  return { width, height, data: new Uint8Array(width * height * 3).fill(level) };
}

async function pixels(png: Uint8Array) {
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
  assert.equal(info.channels, 3);
  const at = (x: number, y: number) => [...data.subarray(3 * (y * info.width + x), 3 * (y * info.width + x) + 3)];
  return { width: info.width, height: info.height, at };
}

function peak(rows: number, columns: number, at: number, others = 0) {
  const weights = new Float32Array(rows * columns).fill(others);
  weights[at] = 0.3;
  return { rows, columns, weights };
}

test("the picture keeps its aspect ratio; a small one is enlarged, a large one reduced", async () => {
  for (const [width, height, wide, high] of [
    [40, 20, 512, 256],
    [20, 40, 256, 512],
    [700, 600, 700, 600],
    [3000, 30, 1024, 10],
    [4000, 1, 1024, 1],
  ] as const) {
    const { width: w, height: h } = await pixels(await attentionOverlay(grey(width, height), peak(3, 3, 0)));
    assert.deepEqual([w, h], [wide, high], `${width} x ${height}`);
  }
});

test("patch by patch: yellow over the centre of the largest, violet where nothing is, half the picture below", async () => {
  for (const [width, height] of [
    [600, 600],
    [900, 300],
    [240, 720],
  ] as const) {
    for (let patch = 0; patch < 6; patch++) {
      const { at } = await pixels(await attentionOverlay(grey(width, height), peak(2, 3, patch)));
      for (let other = 0; other < 6; other++) {
        const x = Math.floor(((other % 3) + 0.5) * (width / 3));
        const y = Math.floor((Math.floor(other / 3) + 0.5) * (height / 2));
        const got = at(x, y);
        // 0.5 · 100 under a quarter of the colour, or under three quarters of it.
        const expected = other === patch ? [202, 186, 40] : [55, 38, 59];
        for (const [i, level] of expected.entries()) {
          assert.ok(Math.abs((got[i] ?? 0) - level) <= 5, `patch ${patch}, at ${other}: ${got} for ${expected}`);
        }
      }
    }
  }
});

test("weights are bilinear between the centres, flat outside them, and scaled by the largest", async () => {
  const grid = { rows: 1, columns: 2, weights: [0.1, 0.2] };
  const { at } = await pixels(await attentionOverlay(grey(800, 600, 0), grid));
  assert.deepEqual(at(0, 0), at(200, 300));
  assert.deepEqual(at(799, 599), at(600, 0));
  assert.deepEqual(at(799, 0), [190, 173, 28]);
  // Three quarters of the largest: between the colours 6 and 7 of ten, 0.625 thick.
  assert.deepEqual(at(400, 0), [60, 125, 61]);
  const doubled = { ...grid, weights: [0.2, 0.4] };
  assert.deepEqual(await attentionOverlay(grey(800, 600, 0), doubled), await attentionOverlay(grey(800, 600, 0), grid));
  const nothing = await pixels(await attentionOverlay(grey(800, 600, 0), { ...grid, weights: [0, 0] }));
  assert.deepEqual(nothing.at(400, 300), [17, 0, 21]);
});

test("a sheet has every map in order, on white", async () => {
  const grids = Array.from({ length: 5 }, (_, i) => peak(1, 5, i));
  const { width, height, at } = await pixels(await attentionSheet(grey(320, 160), grids));
  assert.deepEqual([width, height], [3 * 166 + 6, 2 * 86 + 6]);
  for (let i = 0; i < 5; i++) {
    const [left, top] = [6 + (i % 3) * 166, 6 + Math.floor(i / 3) * 86];
    const yellow = [0, 1, 2, 3, 4].map((patch) => (at(left + 16 + 32 * patch, top + 40)[0] ?? 0) > 150);
    assert.deepEqual(
      yellow,
      [0, 1, 2, 3, 4].map((patch) => patch === i),
    );
  }
  assert.deepEqual(at(3, 3), [255, 255, 255]);
  assert.deepEqual(at(width - 80, height - 40), [255, 255, 255]);
});
