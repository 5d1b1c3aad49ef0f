// CLIP against transformers on the smaller checkpoint, which is in half precision; also on the second driver.

import { clipParityTests } from "./clip-parity.ts";

await clipParityTests("clip-half");
