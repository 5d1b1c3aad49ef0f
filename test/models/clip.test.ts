// CLIP against transformers on a checkpoint in f32 whose image is no whole number of patches.

import { clipParityTests } from "./clip-parity.ts";

await clipParityTests("clip-tiny");
