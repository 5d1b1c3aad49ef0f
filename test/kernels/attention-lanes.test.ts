import assert from "node:assert/strict";
import { test } from "node:test";
import { attentionLanes } from "../../src/kernels/attention-lanes.ts";
import { attentionReference } from "../reference/attention.ts";
import { type Attend, attended, attentionCase, testAttention, tolerance } from "./attention-rig.ts";
import { expectClose, openRig } from "./harness.ts";

const rig = await openRig();

const withQueries =
  (QUERIES: number): Attend =>
  (k, q, key, value, sizes) =>
    attentionLanes(k, { q, key, value, sizes }, { QUERIES });

testAttention(rig, withQueries(2), [33, 88]);

test("one query or two of each invocation: the same bits", async () => {
  const given = attentionCase([2, 37, 70, 2, 12], 0.4);
  const one = await attended(rig, withQueries(1), given);
  expectClose(one, attentionReference(given), tolerance(3));
  assert.deepEqual(one, await attended(rig, withQueries(2), given));
});
