// Checkpoint elements as numbers, by the definitions of the formats.

import { takeOverReference } from "./take-over.ts";

/** `words` hold one f32 or two 16-bit elements each, the low one first. */
export function convertPlainReference(words: Uint32Array, type: "f32" | "f16" | "bf16", count: number): Float64Array {
  if (type === "f32") return Float64Array.from(new Float32Array(words.slice(0, count).buffer));
  const halves: number[] = [];
  for (const word of words) halves.push(word % 65536, Math.floor(word / 65536));
  if (type === "f16") return takeOverReference(halves.slice(0, count));
  const asF32 = Uint32Array.from(halves.slice(0, count), (half) => half * 65536);
  return Float64Array.from(new Float32Array(asF32.buffer));
}
