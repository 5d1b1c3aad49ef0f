// Text <-> ids as SentencePiece does it. @huggingface/tokenizers finds the pieces; what SentencePiece does before and after
// is here. Upstream: google/sentencepiece 0.2, src/normalizer.cc and src/sentencepiece_processor.cc. test/text compares the two.

import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { type Charsmap, readCharsmap } from "./precompiled.ts";
import type { Piece, SentencePieceModel } from "./sentence-piece-model.ts";

export interface SentencePiece {
  /** @param text well-formed Unicode */
  encode(text: string): number[];
  /** Control pieces and unknown ids give nothing, bytes that are no UTF-8 a U+FFFD each. */
  decode(ids: readonly number[]): string;
}

/** Stands for a space in pieces. */
const space = "▁";

/** In front of a piece that no text may match; half of a surrogate pair is in no text. */
const unmatched = "\ud800";

/** @param where names the file in errors. @throws TokenizerError for a normaliser that cannot be read */
export function sentencePiece(model: SentencePieceModel, where: string): SentencePiece {
  const { pieces, byteFallback } = model;
  const normalize = normalizerOf(model, where);
  const engine = engineOf(model);
  const bytes = byteFallback ? bytePieces(pieces) : null;
  const ids = new Map(pieces.flatMap(({ text, kind }, id) => (comesOut(model, kind) ? [[text, id] as const] : [])));
  const unknown = pieces.findIndex(({ kind }) => kind === "unknown");
  const idsOf = (token: string): readonly number[] => {
    const id = ids.get(token);
    if (id !== undefined) return [id];
    return bytes === null ? [unknown] : [...Buffer.from(token, "utf8")].map((byte) => bytes.get(byte) ?? unknown);
  };
  return {
    encode(text) {
      const normal = normalize(text);
      return normal === "" ? [] : engine.tokenize(normal).flatMap(idsOf);
    },
    decode: (given) => decoded(model, given),
  };
}

/** Whether the engine returns such pieces; of Unigram it returns runs without a piece as they are, of BPE their bytes. */
function comesOut({ kind: model }: SentencePieceModel, kind: Piece["kind"]): boolean {
  return kind === "normal" || kind === "user defined" || (model === "bpe" && kind === "byte");
}

/** The ids of the pieces that are bytes, as `<0xE4>`. */
function bytePieces(pieces: readonly Piece[]): Map<number, number> {
  return new Map(pieces.flatMap(({ text, kind }, id) => (kind === "byte" ? [[byteOf(text), id] as const] : [])));
}

function byteOf(text: string): number {
  return Number.parseInt(text.slice(3, 5), 16);
}

/** What is used of the package's tokenizer; its own declarations do not resolve under Node's module rules. */
interface Engine {
  tokenize(text: string): string[];
}

function engineOf({ pieces, kind, byteFallback }: SentencePieceModel): Engine {
  // Taken out of a text wherever they are, as wholes, the longest first.
  const added_tokens = pieces.flatMap(({ text: content, kind }, id) =>
    kind === "user defined"
      ? [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: false }]
      : [],
  );
  const model = kind === "unigram" ? unigram(pieces) : bpe(pieces, byteFallback);
  const parts = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  return new HuggingFaceTokenizer({ ...parts, model, added_tokens }, {}) as unknown as Engine;
}

function unigram(pieces: readonly Piece[]): object {
  return {
    type: "Unigram",
    unk_id: pieces.findIndex(({ kind }) => kind === "unknown"),
    vocab: pieces.map(({ text, score, kind }) => [kind === "normal" ? text : `${unmatched}${text}`, score]),
  };
}

/** A merge for every way in which a piece is made of two others, by the score of what comes out. */
function bpe(pieces: readonly Piece[], byte_fallback: boolean): object {
  const normal = pieces.flatMap(({ text, score, kind }, id) => (kind === "normal" ? [{ text, score, id }] : []));
  const known = new Set(normal.map(({ text }) => text));
  const merges = normal
    .toSorted((a, b) => b.score - a.score || a.id - b.id)
    .flatMap(({ text }) => splits(text).filter(([left, right]) => known.has(left) && known.has(right)));
  // No merge makes a byte's piece out of a text that spells it.
  const others = pieces.flatMap(({ text, kind }, id): [string, number][] => {
    if (kind === "unknown") return [[`${unmatched}${text}`, id]];
    return kind === "byte" ? [[text, id]] : [];
  });
  const vocab = Object.fromEntries([...normal.map(({ text, id }): [string, number] => [text, id]), ...others]);
  const unk_token = others.find(([text]) => text.startsWith(unmatched))?.[0];
  return { type: "BPE", vocab, merges, unk_token, byte_fallback, fuse_unk: true };
}

/** Every cut of a text in two, between characters. */
function splits(text: string): [string, string][] {
  const characters = [...text];
  return characters.slice(1).map((_, i) => [characters.slice(0, i + 1).join(""), characters.slice(i + 1).join("")]);
}

/** What the pieces are looked for in. */
function normalizerOf({ pieces, normalizer }: SentencePieceModel, where: string): (text: string) => string {
  const { charsmap, addsPrefix, removesSpaces } = normalizer;
  const map = charsmap && readCharsmap(charsmap, where);
  const whole = wholesOf(pieces);
  return (text) => {
    const parts = replaced(text, map, whole);
    if (removesSpaces) while (parts[0] === " ") parts.shift();
    if (parts.length === 0) return "";
    let result = addsPrefix ? space : "";
    let afterSpace = removesSpaces;
    for (const part of parts) {
      const kept = afterSpace ? part.replace(/^ +/, "") : part;
      result += kept.replaceAll(" ", space);
      // A part of which nothing is left changes nothing.
      if (kept !== "") afterSpace = removesSpaces && kept.endsWith(" ");
    }
    return removesSpaces ? result.replace(/▁+$/, "") : result;
  };
}

/** The longest user-defined piece at a place, if there is one. */
function wholesOf(pieces: readonly Piece[]): RegExp | null {
  const texts = pieces.filter(({ kind }) => kind === "user defined").map(({ text }) => text);
  if (texts.length === 0) return null;
  texts.sort((a, b) => b.length - a.length);
  return new RegExp(texts.map((text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join("|"), "y");
}

/** A text in the parts that are replaced one by one: user-defined pieces stay, else the longest entry of the map counts. */
function replaced(text: string, map: Charsmap | null, whole: RegExp | null): string[] {
  const bytes = Buffer.from(text, "utf8");
  const parts: string[] = [];
  for (let at = 0, byte = 0; at < text.length; ) {
    const [part, length] = partAt(text, at, bytes, byte, map, whole);
    parts.push(part);
    const consumed = bytes.toString("utf8", byte, byte + length).length;
    at += consumed;
    byte += length;
  }
  return parts;
}

/** What stands at a place for so many bytes of the text. */
function partAt(
  text: string,
  at: number,
  bytes: Buffer,
  byte: number,
  map: Charsmap | null,
  whole: RegExp | null,
): [string, number] {
  if (whole) {
    whole.lastIndex = at;
    const [found] = whole.exec(text) ?? [];
    if (found !== undefined) return [found, Buffer.byteLength(found)];
  }
  const longest = map && [...map.prefixes(bytes, byte)].at(-1);
  if (longest) return [longest.replacement, longest.length];
  const character = String.fromCodePoint(text.codePointAt(at) ?? 0);
  return [character, Buffer.byteLength(character)];
}

function decoded({ pieces, normalizer, unknownText }: SentencePieceModel, ids: readonly number[]): string {
  const { addsPrefix, removesSpaces } = normalizer;
  let text = "";
  let bytes: number[] = [];
  let atStart = true;
  const flush = () => {
    text += textOfBytes(bytes);
    bytes = [];
  };
  for (const id of ids) {
    const piece = pieces[id];
    if (piece === undefined) continue;
    if (piece.kind === "byte") {
      bytes.push(byteOf(piece.text));
      continue;
    }
    flush();
    if (text !== "") atStart = false;
    if (piece.kind === "control") continue;
    if (piece.kind === "unknown") {
      text += unknownText;
      continue;
    }
    let shown = piece.text;
    if (atStart && (addsPrefix || removesSpaces) && shown.startsWith(space)) {
      shown = removesSpaces ? shown.replace(/^▁+/, "") : shown.slice(space.length);
      atStart = false;
    }
    text += shown.replaceAll(space, " ");
  }
  flush();
  return text;
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** UTF-8, with U+FFFD for every byte that is part of no character. */
function textOfBytes(bytes: readonly number[]): string {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at] ?? 0;
    const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    try {
      text += strict.decode(Uint8Array.from(bytes.slice(at, at + length)));
      at += length;
    } catch {
      text += "\ufffd";
      at += 1;
    }
  }
  return text;
}
