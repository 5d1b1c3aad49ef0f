// BLIP that compares images with texts, against transformers on the smaller checkpoint; also on the second driver.

import { blipRetrievalParityTests } from "./blip-retrieval-parity.ts";

await blipRetrievalParityTests("blip-itm-tiny");
