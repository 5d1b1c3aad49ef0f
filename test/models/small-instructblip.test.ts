// InstructBLIP with Vicuna against transformers on the smallest checkpoint; also on the second driver.

import { instructBlipParityTests } from "./instructblip-parity.ts";

await instructBlipParityTests("instructblip-vicuna-tiny");
