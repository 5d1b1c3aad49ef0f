// BLIP-2 against transformers on the smallest checkpoint; also on the second driver.

import { blip2ParityTests } from "./blip-2-parity.ts";

await blip2ParityTests("blip2-opt-tiny");
