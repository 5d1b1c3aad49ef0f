// BLIP-2 with T5 against transformers on a checkpoint in half precision with a tied head, tanh's gelu, 32 queries and
// activations beyond what f16 holds.

import { t5ParityTests } from "./t5-parity.ts";

await t5ParityTests("blip2-t5-half");
