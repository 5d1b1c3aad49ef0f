// SentencePiece's own answers, of a Unigram and of a BPE model, and what is refused.

import assert from "node:assert/strict";
import { cp, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { iceText, maxIceTextLength } from "../../src/text/ice-tokenizer.ts";
import { sentencePiece } from "../../src/text/sentence-piece.ts";
import { readSentencePieceModel } from "../../src/text/sentence-piece-model.ts";
import { openTokenizer } from "../../src/text/tokenizer.ts";
import { fixtures, readJson } from "../fixture-files.ts";
import { glmFolder, readGlmExpected, textIdsOf } from "../models/glm-checkpoint.ts";
import { temporaryFolder } from "../weights/checkpoint-files.ts";

interface Texts {
  readonly tokenizers: readonly {
    readonly file: string;
    /** ids: of the text alone, without what stands around it. */
    readonly texts: readonly { readonly text: string; readonly ids: readonly number[] }[];
    readonly ids: readonly { readonly ids: readonly number[]; readonly text: string }[];
  }[];
}

const { tokenizers } = await readJson<Texts>("glm/texts.json");
const folder = await temporaryFolder();

for (const { file, texts, ids: lists } of tokenizers) {
  const bytes = await readFile(path.join(fixtures, "glm", file));
  const pieces = iceText(sentencePiece(readSentencePieceModel(bytes, file), file));

  test(`${file}: ${texts.length} texts become SentencePiece's ids`, () => {
    assert.ok(texts.length > 90);
    const wrong = texts.flatMap(({ text, ids }) => {
      const got = pieces.encode(text);
      return JSON.stringify(got) === JSON.stringify(ids) ? [] : [{ text, got, ids }];
    });
    assert.deepEqual(wrong, []);
  });

  test(`${file}: ${lists.length} lists of ids become SentencePiece's texts`, () => {
    assert.ok(lists.length > 25);
    const wrong = lists.flatMap(({ ids, text }) => {
      const got = pieces.decode(ids);
      return got === text ? [] : [{ ids, got, text }];
    });
    assert.deepEqual(wrong, []);
  });
}

test("a prompt: both sides of the image cut by themselves, one <unk> between them, [gMASK] and <sop>", async () => {
  const { cases } = await readGlmExpected();
  const tokenizer = await openTokenizer(glmFolder);
  for (const { text_for_model, input_ids, token_ids, text } of cases) {
    assert.deepEqual(tokenizer.tokenize(text_for_model), textIdsOf(input_ids, 5));
    assert.equal(tokenizer.detokenize(token_ids), text);
  }
  const [{ texts } = assert.fail()] = tokenizers;
  for (const { text, ids } of texts) assert.deepEqual(tokenizer.tokenizeAnswer?.(text), ids, "an answer stands alone");
  // Nothing asked: a description is.
  assert.deepEqual(tokenizer.tokenize(null), tokenizer.tokenize("问：描述这张图片。\n答："));
});

test("what ids add to a text keeps its spaces", async () => {
  const tokenizer = await openTokenizer(glmFolder);
  const bytes = await readFile(path.join(glmFolder, "ice_text.model"));
  const ids = iceText(sentencePiece(readSentencePieceModel(bytes, "m"), "m")).encode(" two cats\n\n  and");
  assert.equal(tokenizer.continuation(ids), " two cats\n\n  and");
  assert.equal(tokenizer.detokenize(ids), "two cats\n\n  and");
});

test("texts that no model reads are refused with a reason", async () => {
  const tokenizer = await openTokenizer(glmFolder);
  for (const [text, message] of [
    ["a\ud800b", /^text: expected well-formed Unicode, got half of a surrogate pair at 1$/],
    ["猫".repeat(maxIceTextLength + 1), /^text: expected at most 65536 characters, .* got 65537$/],
  ] as const) {
    assert.throws(() => tokenizer.tokenize(text), { name: "TokenizerError", message });
    assert.throws(() => tokenizer.tokenizeAnswer?.(text), { name: "TokenizerError", message });
  }
  assert.ok(tokenizer.tokenize("a 猫 ".repeat(maxIceTextLength / 4)).length > 30_000);
});

test("files that do not fit each other, or are none, are refused by name", async () => {
  const good = await readFile(path.join(glmFolder, "ice_text.model"));
  const broken: [string, string, Buffer | string, RegExp][] = [
    [
      "none",
      "ice_text.model",
      Buffer.from("no such file"),
      /ice_text\.model: expected a SentencePiece model, got 12 bytes that are none/,
    ],
    [
      "cut",
      "ice_text.model",
      good.subarray(0, 4000),
      /ice_text\.model: expected a SentencePiece model, got 4000 bytes/,
    ],
    [
      "other",
      "config.json",
      JSON.stringify({ gmask_token_id: 1, bos_token_id: 2 }),
      /expected \[gMASK\] to be id 1, as config\.json's gmask_token_id says, got 132/,
    ],
    [
      "lower",
      "tokenizer_config.json",
      '{"do_lower_case": true}',
      /tokenizer_config\.json do_lower_case: expected false, as published, got true/,
    ],
    [
      "old",
      "tokenizer_config.json",
      '{"num_image_tokens": 20000}',
      /num_image_tokens: expected 0, as for a vocabulary of 130528, got 20000/,
    ],
  ];
  for (const [name, file, content, message] of broken) {
    const own = path.join(folder, name);
    await cp(glmFolder, own, { recursive: true });
    await writeFile(path.join(own, file), content);
    await assert.rejects(openTokenizer(own), { name: "TokenizerError", message });
  }
});

test("kinds of models that are not built are refused by the field that says so", () => {
  const model = (trainer: number[], normalizer: number[] = []) =>
    // One piece "a", and the unknown one.
    Buffer.from([
      10,
      3,
      10,
      1,
      97,
      10,
      5,
      10,
      1,
      117,
      24,
      2,
      18,
      trainer.length,
      ...trainer,
      26,
      normalizer.length,
      ...normalizer,
    ]);
  assert.equal(readSentencePieceModel(model([]), "m").kind, "unigram");
  for (const [bytes, message] of [
    [model([24, 3]), "m: trainer_spec.model_type: expected 1 (Unigram) or 2 (BPE), got 3"],
    [model([0xc0, 1, 1]), "m: trainer_spec.treat_whitespace_as_suffix: expected false, got true"],
    [model([], [40, 0]), "m: normalizer_spec.escape_whitespaces: expected true, got false"],
    [
      Buffer.concat([model([]), Buffer.from([10, 5, 10, 1, 98, 24, 5])]),
      'm: pieces: expected none that is unused, got "b"',
    ],
    [
      Buffer.concat([model([]), Buffer.from([10, 5, 10, 1, 98, 24, 2])]),
      "m: pieces: expected one for what is unknown, got 2",
    ],
  ] as const) {
    assert.throws(() => readSentencePieceModel(bytes, "m"), { name: "TokenizerError", message });
  }
});
