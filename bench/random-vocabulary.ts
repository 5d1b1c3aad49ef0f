// A tokenizer with as many ids as a language model: that of a small checkpoint, and made-up words behind its own pieces.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { iceFile } from "../src/text/ice-tokenizer.ts";

export interface VocabularyFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What is used of a tokenizer.json: BPE has ids by piece, Unigram [piece, score] by id. */
interface TokenizerJson {
  readonly added_tokens: readonly { readonly id: number }[];
  readonly decoder: unknown;
  readonly model: { readonly type: string; readonly vocab: Record<string, number> | [string, number][] };
}

/** Less than any piece that a text could be cut into instead. */
const leastScore = -100;

/**
 * The files of the tokenizer in `folder`, whose ids go on up to `count`. Its own ids, special ones included, stay.
 * @returns none of them changed where it has as many already
 */
export async function vocabularyOf(folder: string, count: number): Promise<readonly VocabularyFile[]> {
  const ice = await readFile(join(folder, iceFile)).catch(() => null);
  if (ice !== null) return [{ name: iceFile, bytes: withPieces(ice, count) }];
  const json: TokenizerJson = JSON.parse(await readFile(join(folder, "tokenizer.json"), "utf8"));
  const { added_tokens: added, model } = json;
  const space = JSON.stringify(json.decoder).includes("ByteLevel") ? "Ġ" : "▁";
  const taken = new Set(added.map(({ id }) => id));
  if (Array.isArray(model.vocab)) {
    for (let id = model.vocab.length; id < count; id++) model.vocab.push([`${space}${madeUpWord(id)}`, leastScore]);
  } else {
    for (const id of Object.values(model.vocab)) taken.add(id);
    for (let id = 0; id < count; id++) if (!taken.has(id)) model.vocab[`${space}${madeUpWord(id)}`] = id;
  }
  return [{ name: "tokenizer.json", bytes: Buffer.from(JSON.stringify(json)) }];
}

const consonants = "bdfgklmnprstvz";
const vowels = "aeiou";

/** A word of three syllables or more, another one for every number. */
function madeUpWord(number: number): string {
  let word = "";
  for (let rest = number, i = 0; rest > 0 || i < 3; i++) {
    word += consonants[rest % consonants.length];
    rest = Math.floor(rest / consonants.length);
    word += vowels[rest % vowels.length];
    rest = Math.floor(rest / vowels.length);
  }
  return word;
}

/**
 * A SentencePiece model with more pieces: fields of a message may stand anywhere in it, so that they go behind the others.
 * Each is field 1, of its piece (1, text) and score (2, f32); see sentencepiece_model.proto of google/sentencepiece.
 */
function withPieces(model: Uint8Array, count: number): Uint8Array {
  const pieces = Array.from({ length: count }, (_, id) => {
    const text = Buffer.from(`▁${madeUpWord(id)}`);
    const score = Buffer.alloc(5, 0x15);
    score.writeFloatLE(leastScore, 1);
    return Buffer.concat([Buffer.of(0x0a, text.length + 7, 0x0a, text.length), text, score]);
  });
  return Buffer.concat([model, ...pieces]);
}
