// SentencePiece's normaliser as tokenizer.json and SentencePiece's own files carry it: a map of strings, compiled into a
// double array.
//
// The map holds (tokenizer.json has it in base64): the array's length in bytes (u32, little-endian), the array (u32 each), and the replacements,
// UTF-8, each ended by a zero byte. A unit of the array has a label in bits 0 to 7, whether its node ends a string in bit 8,
// and in bits 9 to 31 how far its children lie; a child lies there XOR its byte. The node of an ended string has a child
// under the byte 0, whose unit is the place of the replacement.

import { TokenizerError } from "./tokenizer-error.ts";

/** Longer clusters are looked up one code point at a time, as the tokenizers that transformers drives do it. */
const longestCluster = 5;

/** The compiled map. */
export interface Charsmap {
  /** The strings of the map that `bytes` has from `from` on, the shortest first: bytes of each, and what replaces it. */
  prefixes(bytes: Uint8Array, from: number): Generator<{ readonly length: number; readonly replacement: string }>;
}

/** @param where names the file and its field in errors. @throws TokenizerError when these bytes are no such map */
export function readCharsmap(bytes: Buffer, where: string): Charsmap {
  const size = bytes.length >= 4 ? bytes.readUInt32LE(0) : 0;
  if (size === 0 || size % 4 !== 0 || 4 + size > bytes.length) {
    throw new TokenizerError(
      `${where}: expected precompiled_charsmap to hold an array and replacements, got ${bytes.length} bytes with an array of ${size}`,
    );
  }
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => bytes.readUInt32LE(4 + 4 * i));
  const replacements = bytes.subarray(4 + size);
  return {
    *prefixes(key, from) {
      let node = childrenOf(units[0] ?? 0);
      for (let at = from; at < key.length; at++) {
        const byte = key[at] ?? 0;
        if (byte === 0) return;
        node ^= byte;
        const unit = units[node] ?? 0;
        // Bit 31 marks places of replacements, so that none of them looks like a label.
        if ((unit & 0x800000ff) >>> 0 !== byte) return;
        node ^= childrenOf(unit);
        if ((unit & 0x100) === 0) continue;
        const start = (units[node] ?? 0) & 0x7fffffff;
        const end = replacements.indexOf(0, start);
        const replacement = replacements.toString("utf8", start, end < 0 ? replacements.length : end);
        yield { length: at + 1 - from, replacement };
      }
    },
  };
}

/**
 * What replaces text, grapheme cluster by grapheme cluster: by the map's shortest entry that the cluster begins with, if it
 * is short; else code point by code point. What the map does not have stays.
 * @param charsmap `precompiled_charsmap` of tokenizer.json
 * @throws TokenizerError when it is no such map
 */
export function precompiledNormalizer(charsmap: string): (text: string) => string {
  const map = readCharsmap(Buffer.from(charsmap, "base64"), "tokenizer.json");
  const clusters = new Intl.Segmenter("und", { granularity: "grapheme" });
  const known = new Map<string, string | null>();
  const replacement = (text: string): string | null => {
    const found = known.get(text);
    if (found !== undefined) return found;
    const { value } = map.prefixes(Buffer.from(text, "utf8"), 0).next();
    const made = value === undefined ? null : value.replacement;
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

function childrenOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}
