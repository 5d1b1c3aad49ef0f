// What the kernels that draw ids are told of a row. Its draws are a function of these words, the step and the id.

import { createHash } from "node:crypto";
import type { GenerateRow } from "./generate-row.ts";

/**
 * A row of `sampling` (kernels/decode-state.ts): temperature f32, k, p f32, seed low and high, item low and high, 0.
 *
 * The item is the image and the text, wherever they are asked about: its two words are the first eight bytes,
 * little-endian, of the SHA-256 of the UTF-8 text
 *
 *     blipfleet sample 1\n<hex SHA-256 of the image file's bytes>\n<text ids, specials included, with a comma between>\n
 */
export function samplingWords({ generation, image, textIds }: GenerateRow): Uint32Array {
  const { temperature, topK, topP, seed } = generation;
  const digest = createHash("sha256")
    .update(`blipfleet sample 1\n${image}\n${textIds.join(",")}\n`)
    .digest();
  const floats = new Uint32Array(Float32Array.of(temperature, topP).buffer);
  return Uint32Array.of(
    floats[0] ?? 0,
    topK,
    floats[1] ?? 0,
    seed % 2 ** 32,
    Math.floor(seed / 2 ** 32),
    digest.readUInt32LE(0),
    digest.readUInt32LE(4),
    0,
  );
}
