// The largest tile that `blipfleet tune` tries on GPUs: a CPU driver compiles it for seconds.

import { test } from "node:test";
import { missingOf } from "../../src/gpu/variants.ts";
import { attentionTiled } from "../../src/kernels/attention-tiled.ts";
import { attentionOperation } from "../../src/kernels/attention-variants.ts";
import { attentionReference } from "../reference/attention.ts";
import { type Attend, attended, attentionCase, tolerance } from "./attention-rig.ts";
import { expectClose, openRig } from "./harness.ts";

const rig = await openRig();
const form = { shader: "attention-tiled", ROWS: 8 } as const;
// It takes more workgroup memory than every adapter has, and is then not tried.
const missing = missingOf(rig.gpu.report, attentionOperation.needs?.(form) ?? {});

const attend: Attend = (k, q, key, value, sizes) => attentionTiled(k, { q, key, value, sizes }, form);

if (missing === null) {
  test("tiles of 64 queries", async () => {
    const given = attentionCase([2, 66, 70, 2, 12], 0.4);
    expectClose(await attended(rig, attend, given), attentionReference(given), tolerance(3));
  });
}
