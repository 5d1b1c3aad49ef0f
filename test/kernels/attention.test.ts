// Which kernel attention takes, and that the one this adapter takes serves images. What kernels must do: attention-rig.ts

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Recorder } from "../../src/gpu/recorder.ts";
import { Variants } from "../../src/gpu/variants.ts";
import { attention } from "../../src/kernels/attention.ts";
import { attentionReference } from "../reference/attention.ts";
import { attended, attentionCase, tolerance } from "./attention-rig.ts";
import { refuseNothing } from "./families.ts";
import { expectClose, openRig } from "./harness.ts";

const rig = await openRig();

/** What is launched for so many queries, with its constants. */
async function launched(softwareAdapter: boolean, queryTokens: number, subgroup: object) {
  const shape = [queryTokens, 8];
  const q = { rows: await rig.tensor("q", shape, new Float32Array(queryTokens * 8)), column: 0 };
  const launches: [string, Record<string, number | string>][] = [];
  const note: Recorder = {
    softwareAdapter,
    variants: new Variants([], { ...rig.gpu.report, features: ["subgroups"], ...subgroup }, refuseNothing),
    scratch: (name) => ({ ...q.rows, name }),
    launch: (shader, { constants = {} }) => void launches.push([shader, constants]),
  };
  const sizes = { batch: 1, queryTokens, keyTokens: queryTokens, heads: 1, headWidth: 8, scale: 1 };
  attention(note, q, q, q, sizes);
  assert.equal(launches.length, 1);
  const [[shader, { LANES, QUERIES }] = ["", {}]] = launches;
  return shader === "attention-lanes" ? `${shader} ${LANES} x ${QUERIES}` : shader;
}

test("a CPU driver with subgroups of one size has lanes, everything else tiles", async () => {
  const of = (size: number) => ({ subgroupMinSize: size, subgroupMaxSize: size });
  assert.equal(await launched(true, 9, of(8)), "attention-lanes 8 x 2");
  assert.equal(await launched(true, 8, of(8)), "attention-lanes 8 x 1");
  assert.equal(await launched(true, 8, of(4)), "attention-lanes 4 x 2");
  assert.equal(await launched(true, 9, { subgroupMinSize: 4, subgroupMaxSize: 8 }), "attention-tiled");
  assert.equal(await launched(true, 9, { ...of(8), features: [] }), "attention-tiled");
  assert.equal(await launched(false, 9, of(32)), "attention-tiled");
});

test("the tokens of larger images: (2, 677, 677, 2, 4)", async () => {
  const given = attentionCase([2, 677, 677, 2, 4], 1);
  expectClose(await attended(rig, attention, given), attentionReference(given), tolerance(4));
});

test("wrong shapes are named", async () => {
  const rows = await rig.tensor("rows", [4, 24], new Float32Array(96));
  const part = { rows, column: 0 };
  const sizes = { batch: 1, queryTokens: 4, keyTokens: 4, heads: 2, headWidth: 8, scale: 1 };
  const launch = (change: object, column = 0, value = part) =>
    rig.run((k) => [attention(k, { rows, column }, part, value, { ...sizes, ...change })]);
  const keyLengths = await rig.tensor("lengths", [2], [1, 1], "u32");
  const positionBias = await rig.tensor("bias", [4, 2], new Float32Array(8));
  for (const [broken, expected] of [
    [launch({ keyTokens: 3, causal: true }), /expected as many keys as queries to be causal, got 3 and 4/],
    [launch({ keyLengths }), /expected lengths to be \(1\), got \(2\)/],
    [launch({ positionBias }), /expected a position bias for as many distances .* got 4 in all/],
    [launch({}, 9), /expected 2 heads of 8 from column 9 within rows, got/],
    [launch({ keyTokens: 3 }), /expected rows to be \(3, width\), got \(4, 24\)/],
    [launch({}, 0, { rows, column: 12 }), /expected 2 heads of 8 from column 12 within rows, got/],
  ] as const) {
    await assert.rejects(broken, expected);
  }
});
