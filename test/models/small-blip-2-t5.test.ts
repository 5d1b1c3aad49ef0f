// BLIP-2 with T5 against transformers on the smallest checkpoint; also on the second driver.

import { t5ParityTests } from "./t5-parity.ts";

await t5ParityTests("blip2-t5-tiny");
