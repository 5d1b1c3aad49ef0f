// InstructBLIP with Vicuna against transformers on a checkpoint in half precision with 32 queries, a tied head, another base of
// its rotary positions, and two ids that end a text.

import { instructBlipParityTests } from "./instructblip-parity.ts";

await instructBlipParityTests("instructblip-vicuna-half");
