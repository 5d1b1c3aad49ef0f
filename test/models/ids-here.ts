// Run by ids-on-adapter.ts in a process of its own, for what only the environment can change: prints the ids of a few cases on
// the device of openTestGpu(), and its lanes and features.

import { writeSync } from "node:fs";
import { loadModel } from "../../src/models/load-model.ts";
import { openTestGpu } from "../gpu/open-test-gpu.ts";
import { idsOfCases, modelFolder, readExpected } from "./parity.ts";

/** The checkpoint and how many of its cases: greedy ones and beams are among the first. */
export const asked = { name: "blip2-opt-tiny", cases: 3 };

const gpu = await openTestGpu();
const { cases } = await readExpected(asked.name);
const ids: Record<string, unknown> = {};
for (const dtype of ["f32", "f16"] as const) {
  const model = await loadModel(gpu, modelFolder(asked.name), { dtype });
  ids[dtype] = await idsOfCases(model, cases.slice(0, asked.cases));
  model.release();
}
const { report, softwareAdapter, bindingLimit } = gpu;
const { subgroupMaxSize, features } = report;
writeSync(1, `${JSON.stringify({ ids, subgroupMaxSize, features, softwareAdapter, bindingLimit })}\n`);
gpu.close();
