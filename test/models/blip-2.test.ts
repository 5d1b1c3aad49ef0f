// BLIP-2 against transformers on checkpoints that are sharded, in f16 and bf16, with unusual sizes and norms.

import { blip2ParityTests } from "./blip-2-parity.ts";

for (const name of ["blip2-opt-sharded", "blip2-opt-bf16"]) await blip2ParityTests(name);
