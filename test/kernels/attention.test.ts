// Which kernel attention takes, what it takes where that fails, and that the one this adapter takes serves images. What kernels
// must do: attention-rig.ts

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Recorder } from "../../src/gpu/recorder.ts";
import { fallbackTable } from "../../src/gpu/tuning-table.ts";
import { missingOf, Variants } from "../../src/gpu/variants.ts";
import { attention } from "../../src/kernels/attention.ts";
import { type AttentionForm, attentionOperation } from "../../src/kernels/attention-variants.ts";
import { openWithTable, testTable } from "../gpu/own-table.ts";
import { attentionReference } from "../reference/attention.ts";
import { attended, attentionCase, tolerance } from "./attention-rig.ts";
import { breakShaders } from "./broken-shader.ts";
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
    variants: new Variants(
      [fallbackTable(softwareAdapter)],
      { ...rig.gpu.report, features: ["subgroups"], ...subgroup },
      refuseNothing,
    ),
    scratch: (name) => ({ ...q.rows, name }),
    launch: (shader, { constants = {} }) => void launches.push([shader, constants]),
  };
  const sizes = { batch: 1, queryTokens, keyTokens: queryTokens, heads: 1, headWidth: 8, scale: 1 };
  attention(note, q, q, q, sizes);
  assert.equal(launches.length, 1);
  const [[shader, { LANES, QUERIES, ROWS }] = ["", {}]] = launches;
  return shader === "attention-lanes" ? `${shader} ${LANES} x ${QUERIES}` : `${shader} 8 x ${ROWS}`;
}

test("a CPU driver with subgroups of one size has lanes, everything else tiles", async () => {
  const of = (size: number) => ({ subgroupMinSize: size, subgroupMaxSize: size });
  for (const queries of [9, 64, 65]) assert.equal(await launched(true, queries, of(8)), "attention-lanes 8 x 2");
  assert.equal(await launched(true, 8, of(8)), "attention-lanes 8 x 1");
  assert.equal(await launched(true, 8, of(4)), "attention-lanes 4 x 1");
  for (const queries of [8, 9, 65]) {
    assert.equal(await launched(true, queries, { subgroupMinSize: 4, subgroupMaxSize: 8 }), "attention-tiled 8 x 4");
    assert.equal(await launched(true, queries, { ...of(8), features: [] }), "attention-tiled 8 x 4");
    assert.equal(await launched(false, queries, of(32)), "attention-tiled 8 x 4");
  }
});

test("what a variant needs", () => {
  const missing = (form: AttentionForm, report: object) =>
    missingOf({ ...rig.gpu.report, ...report }, attentionOperation.needs?.(form) ?? {});
  const [lanes, tiled] = [
    { shader: "attention-lanes", QUERIES: 1 },
    { shader: "attention-tiled", ROWS: 4 },
  ] as const;
  assert.equal(
    missing(lanes, { features: ["subgroups"], subgroupMinSize: 16, subgroupMaxSize: 32 }),
    "needs subgroups of one size, got 16 to 32",
  );
  assert.equal(missing(lanes, { features: [] }), "needs subgroups");
  const limits = { ...rig.gpu.report.limits, maxComputeWorkgroupStorageSize: 16384 };
  assert.equal(missing(tiled, { limits }), null);
  assert.match(missing({ ...tiled, ROWS: 8 }, { limits }) ?? "", /^needs maxComputeWorkgroupStorageSize of 31488, got/);
  const few = { ...limits, maxComputeInvocationsPerWorkgroup: 32 };
  assert.equal(missing(tiled, { limits: few }), "needs maxComputeInvocationsPerWorkgroup of 64, got 32");
});

test("a variant that does not compile is told with its line, and the other family answers", async () => {
  const folder = mkdtempSync(join(tmpdir(), "attention-"));
  const mend = breakShaders([
    ["attention-lanes", "vec4f(\n    subgroupShuffle(part.x", "vec9f(\n    subgroupShuffle(part.x"],
  ]);
  const told: string[] = [];
  const variants = [
    { shader: "attention-lanes", QUERIES: 1 },
    { shader: "attention-tiled", ROWS: 4 },
  ];
  const table = testTable({ attention: { "up to 8 queries": variants } });
  const gpu = await openWithTable(folder, table, (line) => told.push(line));
  try {
    let tested = 0;
    gpu.variants.retest = async () => void tested++;
    const part = async (values: readonly number[]) => {
      const rows = gpu.alloc("rows", [values.length, 1], "f32");
      await gpu.upload(rows, new Uint8Array(Float32Array.from(values).buffer));
      return { rows, column: 0 };
    };
    const [q, key, value] = [await part([1, 0]), await part([Math.log(3), 0]), await part([4, 8])];
    const sizes = { batch: 1, queryTokens: 2, keyTokens: 2, heads: 1, headWidth: 1, scale: 1 };
    const list = await gpu.record("attention", (k) => attention(k, q, key, value, sizes));
    const [y = new ArrayBuffer(0)] = await gpu.submit([list], { reads: [list.result] });
    expectClose(new Float32Array(y), [5, 6], tolerance(1));
    assert.equal(told.length, 1, told.join("\n"));
    assert.match(
      told[0] ?? "",
      /^kernels: attention \(QUERIES=1 shader=attention-lanes\) is refused .*: shaders\/attention-lanes\.wgsl:\d+:\d+ \S/,
    );
    assert.equal(tested, 1, "the next variant is tested before it computes");
    assert.deepEqual(gpu.variants.choose(attentionOperation, "up to 8 queries").variant, variants[1]);
  } finally {
    gpu.close();
    mend();
    rmSync(folder, { recursive: true });
  }
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
