// SentencePiece's normaliser as tokenizer.json carries it: a map of strings, compiled into a double array.
//
// The file holds, in base64: the array's length in bytes (u32, little-endian), the array (u32 each), and the replacements,
// UTF-8, each ended by a zero byte. A unit of the array has a label in bits 0 to 7, whether its node ends a string in bit 8,
// and in bits 9 to 31 how far its children lie; a child lies there XOR its byte. The node of an ended string has a child
// under the byte 0, whose unit is the place of the replacement.

import { TokenizerError } from "./tokenizer-error.ts";

/** Longer clusters are looked up one code point at a time, as the tokenizers that transformers drives do it. */
const longestCluster = 5;

/**
 * What replaces text, grapheme cluster by grapheme cluster: by the map's shortest entry that the cluster begins with, if it
 * is short; else code point by code point. What the map does not have stays.
 * @param charsmap `precompiled_charsmap` of tokenizer.json
 * @throws TokenizerError when it is no such map
 */
export function precompiledNormalizer(charsmap: string): (text: string) => string {
  const bytes = Buffer.from(charsmap, "base64");
  const size = bytes.length >= 4 ? bytes.readUInt32LE(0) : 0;
  if (size === 0 || size % 4 !== 0 || 4 + size > bytes.length) {
    throw new TokenizerError(
      `tokenizer.json: expected precompiled_charsmap to hold an array and replacements, got ${bytes.length} bytes with an array of ${size}`,
    );
  }
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => bytes.readUInt32LE(4 + 4 * i));
  const replacements = bytes.subarray(4 + size);
  const clusters = new Intl.Segmenter("und", { granularity: "grapheme" });
  const known = new Map<string, string | null>();
  const replacement = (text: string): string | null => {
    const found = known.get(text);
    if (found !== undefined) return found;
    const start = placeOf(units, Buffer.from(text, "utf8"));
    const end = start === null ? 0 : replacements.indexOf(0, start);
    const made = start === null ? null : replacements.toString("utf8", start, end < 0 ? replacements.length : end);
    known.set(text, made);
    return made;
  };
  return (text) => {
    let result = "";
    for (const { segment } of clusters.segment(text)) {
      const whole = Buffer.byteLength(segment) <= longestCluster ? replacement(segment) : null;
      if (whole !== null) {
        result += whole;
        continue;
      }
      for (const character of segment) result += replacement(character) ?? character;
    }
    return result;
  };
}

/** Where the replacement of the shortest string begins that is in the map and that `key` begins with. */
function placeOf(units: Uint32Array, key: Uint8Array): number | null {
  let node = childrenOf(units[0] ?? 0);
  for (const byte of key) {
    if (byte === 0) return null;
    node ^= byte;
    const unit = units[node] ?? 0;
    // Bit 31 marks places of replacements, so that none of them looks like a label.
    if ((unit & 0x800000ff) >>> 0 !== byte) return null;
    node ^= childrenOf(unit);
    if ((unit & 0x100) !== 0) return (units[node] ?? 0) & 0x7fffffff;
  }
  return null;
}

function childrenOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}
