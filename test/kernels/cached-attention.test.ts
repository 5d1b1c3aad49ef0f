import assert from "node:assert/strict";
import { test } from "node:test";
import type { Recorder } from "../../src/gpu/recorder.ts";
import { missingOf } from "../../src/gpu/variants.ts";
import { cachedAttention, cachedAttentionSpans } from "../../src/kernels/cached-attention.ts";
import { type CachedAttentionForm, cachedAttentionOperation } from "../../src/kernels/cached-attention-variants.ts";
import { type AttendCached, testCached } from "./cached-attention-rig.ts";
import { asFamily, asVariant, families } from "./families.ts";
import { openRig } from "./harness.ts";

const rig = await openRig();

const inSpans =
  (LANES: number, SPAN: number): AttendCached =>
  (k, form) =>
    cachedAttentionSpans(k, form, { LANES, SPAN });

// The last has spans of no whole tiles.
testCached(rig, inSpans(64, 128), [5, 80, 131], [inSpans(32, 64), inSpans(8, 100)]);

/**
 * The shaders and workgroups that some rows over a table of so many positions launch, with their sizes.
 * @param variant null: as the table of the family has it
 */
async function launched(
  softwareAdapter: boolean,
  rows: number,
  positions: number,
  variant: CachedAttentionForm | null = null,
): Promise<string[]> {
  const [heads, width] = [64, 256];
  const queries = { name: "queries", shape: [rows, width], type: "f32", storage: undefined, byteOffset: 0 } as const;
  const cache = { ...queries, shape: [4, width] };
  const integers = (shape: readonly number[]) => ({ ...queries, shape, type: "u32" }) as const;
  const launches: string[] = [];
  await rig.run((recorder) => {
    const { variants } = variant
      ? asVariant(recorder, cachedAttentionOperation, variant)
      : asFamily(recorder, softwareAdapter);
    const note: Recorder = {
      softwareAdapter,
      variants,
      scratch: (name, shape) => ({ ...queries, name, shape }),
      launch(shader, { workgroups, constants: { lanes, tile, span } = {} }) {
        const sizes = tile === undefined ? `spans of ${span} by ${lanes}` : `blocks of ${tile}`;
        launches.push(`${shader} ${workgroups.join(" ")}, ${sizes}`);
      },
    };
    const [table, cursors] = [integers([1, positions]), integers([rows, 4])];
    cachedAttention(note, queries, { keys: cache, values: cache }, table, cursors, heads, 1);
    return [];
  });
  return launches;
}

test("one workgroup per head and row on a CPU driver; on a GPU one per span, whose parts are joined", async () => {
  assert.deepEqual(
    families.map(({ softwareAdapter }) => softwareAdapter),
    [true, false],
  );
  assert.deepEqual(await launched(true, 5, 300), ["cached-attention-lanes 64 5, blocks of 64"]);
  assert.deepEqual(await launched(false, 5, 128), ["cached-attention 64 5 1, spans of 128 by 64"]);
  assert.deepEqual(await launched(false, 5, 129), [
    "cached-attention 64 5 2, spans of 128 by 64",
    "cached-attention-join 64 5, spans of 128 by 64",
  ]);
});

test("the variant's sizes are those that are launched", async () => {
  const blocks = { shader: "cached-attention-lanes", TILE: 32 } as const;
  assert.deepEqual(await launched(true, 5, 300, blocks), ["cached-attention-lanes 64 5, blocks of 32"]);
  const spans = { shader: "cached-attention", LANES: 32, SPAN: 64 } as const;
  assert.deepEqual(await launched(true, 5, 129, spans), [
    "cached-attention 64 5 3, spans of 64 by 32",
    "cached-attention-join 64 5, spans of 64 by 64",
  ]);
});

test("blocks need subgroups of one size that divides them", () => {
  const of = (subgroupMinSize: number, subgroupMaxSize = subgroupMinSize) => ({
    ...{ ...rig.gpu.report, features: ["subgroups"] },
    ...{ subgroupMinSize, subgroupMaxSize },
  });
  const needs = cachedAttentionOperation.needs?.({ shader: "cached-attention-lanes", TILE: 64 }) ?? {};
  assert.equal(missingOf(of(64), needs), null);
  assert.equal(missingOf(of(128), needs), "needs subgroups that divide a block of 64 positions, got 128");
  assert.equal(missingOf(of(8, 16), needs), "needs subgroups of one size, got 8 to 16");
  const many = cachedAttentionOperation.needs?.({ shader: "cached-attention", LANES: 4096, SPAN: 128 }) ?? {};
  assert.match(missingOf(of(8), many) ?? "", /^needs maxComputeInvocationsPerWorkgroup of 4096, got/);
});

test("rows whose parts would be too much are taken some at a time", async () => {
  // 16 spans of 64 heads of 4 are 24 KiB a row.
  assert.deepEqual(await launched(false, 1400, 2048), [
    "cached-attention 64 1365 16, spans of 128 by 64",
    "cached-attention-join 64 1365, spans of 128 by 64",
    "cached-attention 64 35 16, spans of 128 by 64",
    "cached-attention-join 64 35, spans of 128 by 64",
  ]);
});
