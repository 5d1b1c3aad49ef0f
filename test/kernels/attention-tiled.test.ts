import { attentionTiled } from "../../src/kernels/attention-tiled.ts";
import { testAttention } from "./attention-rig.ts";
import { openRig } from "./harness.ts";

// The last takes two workgroups for the columns of a head.
testAttention(await openRig(), attentionTiled, [88, 192]);
