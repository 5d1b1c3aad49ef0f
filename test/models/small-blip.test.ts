// BLIP that writes texts against transformers on the smallest checkpoint; also on the second driver.

import { blipParityTests } from "./blip-parity.ts";

await blipParityTests("blip-vqa-tiny");
