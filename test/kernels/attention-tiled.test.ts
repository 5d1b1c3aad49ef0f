import { test } from "node:test";
import { missingOf } from "../../src/gpu/variants.ts";
import { attentionTiled } from "../../src/kernels/attention-tiled.ts";
import { attentionOperation } from "../../src/kernels/attention-variants.ts";
import { attentionReference } from "../reference/attention.ts";
import { type Attend, attended, attentionCase, testAttention, tolerance } from "./attention-rig.ts";
import { expectClose, openRig } from "./harness.ts";

const rig = await openRig();

const withRows =
  (ROWS: number): Attend =>
  (k, q, key, value, sizes) =>
    attentionTiled(k, { q, key, value, sizes }, { ROWS });

// The last takes two workgroups for the columns of a head.
testAttention(rig, withRows(4), [88, 192]);

for (const ROWS of [1, 2, 8]) {
  const needs = attentionOperation.needs?.({ shader: "attention-tiled", ROWS }) ?? {};
  // The largest takes more workgroup memory than every adapter has.
  if (missingOf(rig.gpu.report, needs) !== null) continue;
  test(`tiles of ${8 * ROWS} queries`, async () => {
    const given = attentionCase([2, 66, 70, 2, 12], 0.4);
    expectClose(await attended(rig, withRows(ROWS), given), attentionReference(given), tolerance(3));
  });
}
