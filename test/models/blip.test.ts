// BLIP that writes texts against transformers: captions, and checkpoints in half precision with unusual norms and heads.

import { blipParityTests } from "./blip-parity.ts";

for (const name of ["blip-caption-tiny", "blip-caption-half", "blip-vqa-half"]) await blipParityTests(name);
