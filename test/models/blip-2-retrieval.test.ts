// BLIP-2 that compares images with texts, against transformers on a checkpoint in half precision with 32 queries.

import { retrievalParityTests } from "./retrieval-parity.ts";

await retrievalParityTests("blip2-itm-half");
