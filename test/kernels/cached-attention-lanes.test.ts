import { cachedAttentionLanes } from "../../src/kernels/cached-attention-lanes.ts";
import { type AttendCached, testCached } from "./cached-attention-rig.ts";
import { openRig } from "./harness.ts";

const inBlocks =
  (TILE: number): AttendCached =>
  (k, form) =>
    cachedAttentionLanes(k, form, { TILE });

testCached(await openRig(), inBlocks(64), [1, 5, 8, 9, 63, 80], [inBlocks(32), inBlocks(128)]);
