// The adapter of a model's test. scripts/test-adapters.mjs has the same tests run on others, or on this one as another would
// be, and says so in BLIPFLEET_TEST_DEVICE: the options of openGpu() as JSON.

import { adapterLine } from "../../src/gpu/adapter.ts";
import { type Gpu, type OpenOptions, openGpu } from "../../src/gpu/device.ts";
import { refuseNothing } from "../kernels/families.ts";

/** A device, told on stderr. A variant of a kernel that it refuses fails the test. */
export async function openTestGpu(): Promise<Gpu> {
  const asked: OpenOptions = JSON.parse(process.env.BLIPFLEET_TEST_DEVICE ?? "{}");
  const gpu = await openGpu({ nap: true, tell: refuseNothing, ...asked });
  process.stderr.write(`adapter: ${adapterLine(gpu.report)}\n`);
  return gpu;
}
