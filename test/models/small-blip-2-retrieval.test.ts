// BLIP-2 that compares images with texts, against transformers on the smaller checkpoint; also on the second driver.

import { retrievalParityTests } from "./retrieval-parity.ts";

await retrievalParityTests("blip2-itm-tiny");
