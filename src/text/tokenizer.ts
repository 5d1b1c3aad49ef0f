// Text <-> ids, by the checkpoint's own tokenizer.json, as transformers' fast tokenizers do it.
//
// @huggingface/tokenizers does the work. Where it differs from the tokenizers that transformers drives, the difference
// is settled here, and test/text compares the two over some hundred strings and id lists.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { iceFile, openIceTokenizer } from "./ice-tokenizer.ts";
import { precompiledNormalizer } from "./precompiled.ts";
import { TokenizerError } from "./tokenizer-error.ts";
import { stripped } from "./white-space.ts";

/** Longest text in UTF-16 units; no model of the family reads a hundredth of it. */
export const maxTextLength = 2 ** 20;

/**
 * Longest word in UTF-16 units for a tokenizer of T5's kind: the package hands all pieces of a word over as the arguments of
 * one call, of which there may be some 120,000.
 */
export const maxWordLength = 100_000;

/** Text to ids and back for one checkpoint. Calls are synchronous and independent of each other. */
export interface Tokenizer {
  /**
   * Ids that the language model reads after the image slots, specials included. `null`, no prompt at all, gives the
   * configuration's bos alone, as transformers' generate() does; "" gives what the tokenizer makes of an empty text. BLIP
   * continues a prompt, whose ids begin with bos and have no end. VisualGLM's ids hold <unk> once, where the image
   * is, and `null` gives its question for a description.
   * @throws TokenizerError for a text that is too long, is not Unicode or holds the image token
   */
  tokenize(text: string | null): number[];
  /**
   * Ids of an answer by itself, without the one that ends it; only VisualGLM's, whose answers follow <sop>.
   * @throws TokenizerError as tokenize does
   */
  tokenizeAnswer?(text: string): number[];
  /** The text of exactly these ids: specials and unknown ids skipped, cleaned up as the file says, trimmed. */
  detokenize(ids: readonly number[]): string;
  /** What these ids add to a text that they continue: specials and unknown ids skipped, nothing cleaned up or trimmed. */
  continuation(ids: readonly number[]): string;
}

/** What is used of the package's tokenizer; its own declarations do not resolve under Node's module rules. */
interface Engine {
  readonly normalizer: unknown;
  readonly pre_tokenizer: unknown;
  readonly decoder: unknown;
  encode(text: string): { readonly ids: number[] };
  decode(ids: readonly number[], options: { readonly clean_up_tokenization_spaces: boolean }): string;
  id_to_token(id: number): string | undefined;
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/**
 * Reads tokenizer.json or ice_text.model, tokenizer_config.json (optional) and config.json (bos of a missing prompt, image
 * token) of a checkpoint.
 * @throws TokenizerError naming the file that is missing or is not what it should be
 */
export async function openTokenizer(directory: string): Promise<Tokenizer> {
  const file = path.join(directory, "tokenizer.json");
  const tokenizer = await readObject(file);
  const config = (await readObject(path.join(directory, "tokenizer_config.json"))) ?? {};
  const model = (await readObject(path.join(directory, "config.json"))) ?? {};
  if (tokenizer === null) {
    if (existsSync(path.join(directory, iceFile))) return openIceTokenizer(directory, config, model);
    throw new TokenizerError(
      `${file}: expected the checkpoint's tokenizer.json, got no such file; save its fast tokenizer there`,
    );
  }
  const added = addedTokens(tokenizer, config);
  const special = new Set(added.filter((token) => token.special).map((token) => token.content));
  const normalizer = normalizerOf(tokenizer, config);
  const template = templateOf(tokenizer, config);
  const engine = buildEngine(file, { ...tokenizer, normalizer, added_tokens: added, post_processor: template }, config);
  const lowers = lowersCase(normalizer);
  const parts = normalizer?.type === "BertNormalizer" && normalizer.handle_chinese_chars === true;
  const cleanUp = config.clean_up_tokenization_spaces === true;
  const isUnigram = asObject(tokenizer.model)?.type === "Unigram";
  const bos = bosOf(model);
  const continues = writesCaptions(model);
  const image = idOf(model.image_token_index ?? model.image_token_id);

  const isText = (id: number) => {
    const token = engine.id_to_token(id);
    return token !== undefined && !special.has(token);
  };
  const plainText = (ids: readonly number[]) => engine.decode(ids, { clean_up_tokenization_spaces: false });
  const before = engine.encode(anyText).ids.filter(isText);

  return {
    tokenize(text) {
      if (text === null) {
        if (bos !== null) return [bos];
        throw new TokenizerError(
          "text: expected a prompt, because config.json names no text_config.bos_token_id to stand for one, got none; give a prompt",
        );
      }
      check(text);
      if (isUnigram) checkWords(text);
      // JavaScript lowers a sigma at the end of a word to another letter; the tokenizers look at one letter alone.
      const letters = lowers ? text.replaceAll("Σ", "σ") : text;
      const { ids } = engine.encode(parts ? letters.replace(farIdeographs, " $& ") : letters);
      if (image !== null && ids.includes(image)) {
        throw new TokenizerError(
          `text: expected no ${engine.id_to_token(image) ?? "image token"}, got one; image slots are added in front of the text`,
        );
      }
      return continues && bos !== null ? [bos, ...ids.slice(1, -1)] : ids;
    },
    detokenize(ids) {
      const kept = ids.filter(isText);
      if (kept.length === 0) return "";
      return stripped(engine.decode(kept, { clean_up_tokenization_spaces: cleanUp }));
    },
    continuation(ids) {
      return plainText([...before, ...ids.filter(isText)]).slice(plainText(before).length);
    },
  };
}

/** Some text in front, as transformers' StopStringCriteria has it, because decoders treat the first token differently. */
const anyText = "abcdef";

/** The id that starts a text where none is given, with the configuration classes' defaults. */
function bosOf({ model_type, text_config }: Fields): number | null {
  const text = asObject(text_config);
  const given = idOf(text?.bos_token_id);
  if (given !== null) return given;
  if (model_type === "blip") return 30522;
  return text?.model_type === "t5" ? null : 2;
}

/**
 * BLIP's captioner, which continues its prompt: what the tokenizer puts first, [CLS], gives way to bos, [DEC], and what it puts
 * last, [SEP], is left out. The other kinds of BLIP read a text as it is.
 */
function writesCaptions({ model_type, architectures }: Fields): boolean {
  if (model_type !== "blip") return false;
  return (
    !Array.isArray(architectures) ||
    architectures.length === 0 ||
    architectures.includes("BlipForConditionalGeneration")
  );
}

function check(text: string): void {
  if (text.length > maxTextLength) {
    throw new TokenizerError(`text: expected at most ${maxTextLength} characters, got ${text.length}`);
  }
  const surrogate = text.search(/\p{Surrogate}/u);
  if (surrogate >= 0) {
    throw new TokenizerError(`text: expected well-formed Unicode, got half of a surrogate pair at ${surrogate}`);
  }
}

/** @throws TokenizerError for a word that is too long */
function checkWords(text: string): void {
  for (const [word] of text.matchAll(/\P{White_Space}+/gu)) {
    if (word.length <= maxWordLength) continue;
    throw new TokenizerError(
      `text: expected words of at most ${maxWordLength} characters, got one of ${word.length}; put spaces into the text`,
    );
  }
}

type Fields = Record<string, unknown>;

function asObject(value: unknown): Fields | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : null;
}

function idOf(value: unknown): number | null {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 ? value : null;
}

async function readObject(file: string): Promise<Fields | null> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new TokenizerError(`${file}: expected a readable file, got ${(cause as Error).message}`, { cause });
  }
  try {
    const value = asObject(JSON.parse(text));
    if (value !== null) return value;
  } catch (cause) {
    throw new TokenizerError(`${file}: expected a JSON object, got ${(cause as Error).message}`, { cause });
  }
  throw new TokenizerError(`${file}: expected a JSON object, got other JSON`);
}

function buildEngine(file: string, tokenizer: Fields, config: Fields): Engine {
  const pre = asObject(tokenizer.pre_tokenizer);
  // As transformers: tokenizer_config.json decides about the space in front of a text.
  const prefixed = pre !== null && "add_prefix_space" in pre;
  const adjusted = prefixed ? { ...pre, add_prefix_space: config.add_prefix_space === true } : pre;
  try {
    const engine: Engine = new HuggingFaceTokenizer({ ...tokenizer, pre_tokenizer: adjusted }, config);
    // The package's pattern uses JavaScript's \s, which counts U+FEFF as a space and U+0085 as none.
    if (pre?.type === "ByteLevel") (engine.pre_tokenizer as { pattern: RegExp }).pattern = words;
    for (const [part, { type }] of partsOf(engine.pre_tokenizer, "tokenizers", pre, "pretokenizers")) {
      if (type === "WhitespaceSplit") part.pre_tokenize_text = (text) => text.match(/\P{White_Space}+/gu) ?? [];
    }
    const normalizer = asObject(tokenizer.normalizer);
    for (const [part, given] of partsOf(engine.normalizer, "normalizers", normalizer, "normalizers")) {
      if (given.type === "Strip") part.normalize = (text) => trimmed(text, given);
      if (given.type === "Precompiled") part.normalize = precompiledNormalizer(String(given.precompiled_charsmap));
    }
    for (const [part, given] of partsOf(engine.decoder, "decoders", asObject(tokenizer.decoder), "decoders")) {
      if (given.type === "ByteFallback") part.text_decoder = { decode: textOfBytes };
    }
    return engine;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TokenizerError(`${file}: expected a tokenizer of a supported kind, got one that fails (${reason})`, {
      cause,
    });
  }
}

/** What may be replaced of a part of the package's tokenizer. */
interface EnginePart {
  pre_tokenize_text?: (text: string) => string[];
  normalize?: (text: string) => string;
  text_decoder?: { decode(bytes: Uint8Array): string };
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** What a run of byte tokens says; if it is no UTF-8 as a whole, each byte becomes U+FFFD. */
function textOfBytes(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    return "\ufffd".repeat(bytes.length);
  }
}

/** The parts of a normaliser, pre-tokenizer or decoder, each with what the file says of it; those of a sequence one by one. */
function partsOf(engine: unknown, key: string, given: Fields | null, givenKey: string): [EnginePart, Fields][] {
  if (given?.type !== "Sequence") return given === null ? [] : [[engine as EnginePart, given]];
  const parts = (engine as Record<string, EnginePart[]>)[key] ?? [];
  return parts.map((part, i) => [part, (given[givenKey] as Fields[] | undefined)?.[i] ?? {}]);
}

/** Without Unicode's white space at the ends that the file says; JavaScript's trim() counts U+FEFF as a space and U+0085 as none. */
function trimmed(text: string, { strip_left, strip_right }: Fields): string {
  const start = strip_left === true ? text.replace(/^\p{White_Space}+/u, "") : text;
  return strip_right === true ? start.replace(/\p{White_Space}+$/u, "") : start;
}

/** BERT's normaliser, as transformers' BertTokenizerFast sets it: tokenizer_config.json decides, with that class's defaults. */
function normalizerOf(tokenizer: Fields, config: Fields): Fields | null {
  const normalizer = asObject(tokenizer.normalizer);
  const isBert = /^BertTokenizer(Fast)?$/.test(String(config.tokenizer_class));
  if (!isBert || normalizer?.type !== "BertNormalizer") return normalizer;
  return {
    ...normalizer,
    lowercase: config.do_lower_case ?? true,
    strip_accents: config.strip_accents ?? null,
    handle_chinese_chars: config.tokenize_chinese_chars ?? true,
  };
}

/**
 * What is put around a text. transformers' LlamaTokenizerFast puts the tokens there that tokenizer_config.json names for these
 * roles, whatever tokenizer.json says: Vicuna's texts begin with </s>.
 */
function templateOf(tokenizer: Fields, config: Fields): unknown {
  if (!/^LlamaTokenizer(Fast)?$/.test(String(config.tokenizer_class))) return tokenizer.post_processor;
  const named = (role: "bos_token" | "eos_token", standard: string): string =>
    String(asObject(config[role])?.content ?? config[role] ?? standard);
  const first = (config.add_bos_token ?? true) === true ? [named("bos_token", "<s>")] : [];
  const last = config.add_eos_token === true ? [named("eos_token", "</s>")] : [];
  const part = (sequence: "A" | "B", type_id: number) => [
    ...first.map((id) => ({ SpecialToken: { id, type_id } })),
    { Sequence: { id: sequence, type_id } },
    ...last.map((id) => ({ SpecialToken: { id, type_id } })),
  ];
  const added = (tokenizer.added_tokens ?? []) as AddedToken[];
  const vocabulary = asObject(asObject(tokenizer.model)?.vocab) ?? {};
  const idsOf = (content: string) => [added.find((token) => token.content === content)?.id ?? vocabulary[content]];
  return {
    type: "TemplateProcessing",
    single: part("A", 0),
    pair: [...part("A", 0), ...part("B", 1)],
    special_tokens: Object.fromEntries(
      [...first, ...last].map((token) => [token, { id: token, ids: idsOf(token), tokens: [token] }]),
    ),
  };
}

function lowersCase(normalizer: Fields | null): boolean {
  if (normalizer === null) return false;
  const { type, lowercase, normalizers } = normalizer;
  if (type === "Sequence" && Array.isArray(normalizers)) return normalizers.some((each) => lowersCase(asObject(each)));
  return type === "Lowercase" || (type === "BertNormalizer" && lowercase === true);
}

/**
 * Ideographs that stand alone as words and lie beyond U+FFFF, where the package does not look for them. The ranges are
 * those of the tokenizers that transformers drives, the gap in them included.
 */
const farIdeographs = /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

/** GPT-2's words, with Unicode's white space. */
const words =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/**
 * The added tokens of tokenizer.json as transformers changes them when it loads: tokenizer_config.json overrides them,
 * and a token that has a role and is in the vocabulary becomes a special one if neither file lists it.
 */
function addedTokens(tokenizer: Fields, config: Fields): AddedToken[] {
  const tokens = new Map(((tokenizer.added_tokens ?? []) as AddedToken[]).map((token) => [token.content, token]));
  for (const [id, value] of Object.entries(asObject(config.added_tokens_decoder) ?? {})) {
    const token = { ...(value as AddedToken), id: Number(id) };
    tokens.set(token.content, token);
  }
  const vocabulary = asObject(asObject(tokenizer.model)?.vocab) ?? {};
  const more = Array.isArray(config.additional_special_tokens) ? config.additional_special_tokens : [];
  for (const value of [...roles.map((role) => config[role]), ...more]) {
    const content = asObject(value)?.content ?? value;
    if (typeof content !== "string" || tokens.has(content)) continue;
    const id = idOf(vocabulary[content]);
    if (id !== null) tokens.set(content, { id, content, ...plain, special: true });
  }
  return [...tokens.values()];
}

const plain = { normalized: false, lstrip: false, rstrip: false, single_word: false };
const roles = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];
