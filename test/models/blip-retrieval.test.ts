// BLIP that compares images with texts, against transformers.

import { blipRetrievalParityTests } from "./blip-retrieval-parity.ts";

for (const name of ["blip-itm-tiny", "blip-itm-half"]) await blipRetrievalParityTests(name);
