// InstructBLIP with T5 against transformers on a checkpoint in half precision.

import { instructBlipParityTests } from "./instructblip-parity.ts";

await instructBlipParityTests("instructblip-t5-half");
