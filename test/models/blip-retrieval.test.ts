// BLIP that compares images with texts, against transformers: a checkpoint in half precision with unusual norms.

import { blipRetrievalParityTests } from "./blip-retrieval-parity.ts";

await blipRetrievalParityTests("blip-itm-half");
