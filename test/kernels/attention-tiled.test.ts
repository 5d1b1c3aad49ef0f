import { test } from "node:test";
import { attentionTiled } from "../../src/kernels/attention-tiled.ts";
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

for (const ROWS of [1, 2]) {
  test(`tiles of ${8 * ROWS} queries`, async () => {
    const given = attentionCase([2, 35, 37, 2, 12], 0.4);
    expectClose(await attended(rig, withRows(ROWS), given), attentionReference(given), tolerance(3));
  });
}
