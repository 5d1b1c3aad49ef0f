// The tokenizer of ChatGLM-6B and VisualGLM-6B: `ice_text.model`, a SentencePiece model, and the spelling of what it has
// no piece for. Upstream: tokenization_chatglm.py of the Hugging Face repositories.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { glmCaption, glmPrompt } from "./prompts.ts";
import { type SentencePiece, sentencePiece } from "./sentence-piece.ts";
import { readSentencePieceModel } from "./sentence-piece-model.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { TokenizerError } from "./tokenizer-error.ts";
import { stripped } from "./white-space.ts";

/** Name of the file. */
export const iceFile = "ice_text.model";

/** Longest text in UTF-16 units: more than the 2048 positions of the model hold of any text. */
export const maxIceTextLength = 2 ** 16;

/** The longest run of spaces that has a piece. */
const mostBlanks = 80;

/** Around the image. They are ordinary text, and what is in front of the image is cut by itself. */
const beforeImage = "<img>";
const behindImage = "</img>";

/** What follows the text; their ids are also in config.json. */
const endings = ["[gMASK]", "<sop>"] as const;

type Fields = Readonly<Record<string, unknown>>;

/**
 * @param directory of the checkpoint, with `ice_text.model`
 * @param config tokenizer_config.json, or {}
 * @param model config.json, or {}: gmask_token_id and bos_token_id
 * @throws TokenizerError naming the file that is not what it should be
 */
export async function openIceTokenizer(directory: string, config: Fields, model: Fields): Promise<Tokenizer> {
  const file = path.join(directory, iceFile);
  const offset = config.num_image_tokens ?? 0;
  if (offset !== 0) {
    throw new TokenizerError(
      `${directory}: tokenizer_config.json num_image_tokens: expected 0, as for a vocabulary of 130528, got ${offset}; ` +
        "take the newer files of the model",
    );
  }
  for (const key of ["do_lower_case", "remove_space"]) {
    if (config[key] !== true) continue;
    throw new TokenizerError(`${directory}: tokenizer_config.json ${key}: expected false, as published, got true`);
  }
  const read = readSentencePieceModel(await readFile(file), file);
  const pieces = iceText(sentencePiece(read, file));
  const idOf = (piece: string) => read.pieces.findIndex(({ text }) => text === piece);
  for (const [piece, key] of [
    [endings[0], "gmask_token_id"],
    [endings[1], "bos_token_id"],
  ] as const) {
    if (idOf(piece) !== model[key]) {
      throw new TokenizerError(
        `${file}: expected ${piece} to be id ${model[key]}, as config.json's ${key} says, got ${idOf(piece)}; take both files of one model`,
      );
    }
  }
  const image = read.pieces.findIndex(({ kind }) => kind === "unknown");
  const before = pieces.encode(beforeImage);
  const tail = endings.map(idOf);
  const start = pieces.encode(anyText);
  return {
    tokenize(text) {
      const asked = text ?? glmPrompt(glmCaption);
      check(asked);
      return [...before, image, ...pieces.encode(`${behindImage}${asked}`), ...tail];
    },
    tokenizeAnswer(text) {
      check(text);
      return pieces.encode(text);
    },
    detokenize: (ids) => stripped(pieces.decode(ids)),
    continuation: (ids) => pieces.decode([...start, ...ids]).slice(pieces.decode(start).length),
  };
}

/** Some text in front, because the first piece of a text loses its space. */
const anyText = "abcdef";

/** Pieces that know line feeds, tabs and runs of spaces. */
export function iceText(pieces: SentencePiece): SentencePiece {
  return { encode: (text) => pieces.encode(spelled(text)), decode: (ids) => spelledBack(pieces.decode(ids)) };
}

/** Line feeds, tabs and runs of spaces as the pieces that stand for them, the longest run first. */
function spelled(text: string): string {
  return text
    .replaceAll("\n", "<n>")
    .replaceAll("\t", "<|tab|>")
    .replace(/ {2,}/g, (run) => {
      const whole = Math.floor(run.length / mostBlanks);
      const rest = run.length % mostBlanks;
      return blanks(mostBlanks).repeat(whole) + (rest > 1 ? blanks(rest) : " ".repeat(rest));
    });
}

function blanks(count: number): string {
  return `<|blank_${count}|>`;
}

function spelledBack(text: string): string {
  return text
    .replaceAll("<n>", "\n")
    .replaceAll("<|tab|>", "\t")
    .replace(/<\|blank_(\d{1,2})\|>/g, (whole, count) => {
      const spaces = Number(count);
      return spaces >= 2 && spaces <= mostBlanks && blanks(spaces) === whole ? " ".repeat(spaces) : whole;
    });
}

function check(text: string): void {
  if (text.length > maxIceTextLength) {
    throw new TokenizerError(
      `text: expected at most ${maxIceTextLength} characters, which are more than the model reads, got ${text.length}`,
    );
  }
  const surrogate = text.search(/\p{Surrogate}/u);
  if (surrogate >= 0) {
    throw new TokenizerError(`text: expected well-formed Unicode, got half of a surrogate pair at ${surrogate}`);
  }
}
