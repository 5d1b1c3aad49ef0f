import { cachedAttentionLanes } from "../../src/kernels/cached-attention-lanes.ts";
import { testCached } from "./cached-attention-rig.ts";
import { openRig } from "./harness.ts";

testCached(await openRig(), cachedAttentionLanes, [1, 5, 8, 9, 63, 80]);
