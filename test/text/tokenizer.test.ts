import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { precompiledNormalizer } from "../../src/text/precompiled.ts";
import { questionPrompt } from "../../src/text/prompts.ts";
import { maxTextLength, maxWordLength, openTokenizer } from "../../src/text/tokenizer.ts";
import { TokenizerError } from "../../src/text/tokenizer-error.ts";
import { fixtures, readJson } from "../fixture-files.ts";

interface TextCases {
  readonly texts: string[];
  readonly models: Record<string, { readonly ids: number[][]; readonly decodes: [number[], string][] }>;
}

/** What a map of strings in front of blip2-t5-half's tokenizer makes of the texts. */
interface Mapped {
  readonly charsmap: string;
  /** Texts and what they become. */
  readonly changed: [string, string][];
  readonly ids: number[][];
}

const { texts, models } = await readJson<TextCases>("text/expected.json");
const unigram = await readJson<Pick<TextCases, "models"> & { readonly mapped: Mapped }>("text/unigram.json");
const folderOf = (model: string) => path.join(fixtures, "models", model);

for (const [model, expected] of Object.entries({ ...models, ...unigram.models })) {
  test(`${model} encodes ${texts.length} texts as transformers`, async () => {
    const tokenizer = await openTokenizer(folderOf(model));
    assert.ok(texts.length > 250 && expected.ids.length === texts.length);
    const wrong = texts.flatMap((text, index) => {
      const ids = tokenizer.tokenize(text);
      return JSON.stringify(ids) === JSON.stringify(expected.ids[index])
        ? []
        : [{ text, ids, wanted: expected.ids[index] }];
    });
    assert.deepEqual(wrong, []);
  });

  test(`${model} decodes ${expected.decodes.length} id lists as transformers`, async () => {
    const tokenizer = await openTokenizer(folderOf(model));
    assert.ok(expected.decodes.length > 100);
    const wrong = expected.decodes.flatMap(([ids, wanted]) => {
      const text = tokenizer.detokenize(ids);
      return text === wanted ? [] : [{ ids, text, wanted }];
    });
    assert.deepEqual(wrong, []);
  });
}

test("Llama's tokenizer with bytes to fall back to: texts and ids as transformers, with the first token that the settings name", async () => {
  const expected = await readJson<{ texts: string[]; ids: number[][]; decodes: [number[], string][] }>(
    "text/llama.json",
  );
  const folder = path.join(fixtures, "instructblip", "instructblip-vicuna-tiny");
  const { post_processor } = JSON.parse(await readFile(path.join(folder, "tokenizer.json"), "utf8"));
  assert.deepEqual(post_processor.special_tokens["<s>"].ids, [1], "tokenizer.json names another token");
  const tokenizer = await openTokenizer(folder);
  assert.ok(expected.texts.length > 80 && expected.decodes.length > 40);
  for (const [index, text] of expected.texts.entries()) {
    assert.equal(expected.ids[index]?.[0], 2);
    assert.deepEqual(tokenizer.tokenize(text), expected.ids[index], JSON.stringify(text));
  }
  for (const [ids, wanted] of expected.decodes) assert.equal(tokenizer.detokenize(ids), wanted, JSON.stringify(ids));
});

test("BERT's word pieces are those of transformers, lower-cased or not as tokenizer_config.json says, and none is cut off", async () => {
  const expected = await readJson<Record<"lower" | "cased", number[][]>>("text/word-pieces.json");
  const folder = path.join(fixtures, "retrieval", "blip2-itm-tiny");
  const copy = await mkdtemp(path.join(os.tmpdir(), "word-pieces-"));
  await cp(folder, copy, { recursive: true });
  const config = JSON.parse(await readFile(path.join(folder, "tokenizer_config.json"), "utf8"));
  await writeFile(path.join(copy, "tokenizer_config.json"), JSON.stringify({ ...config, do_lower_case: false }));
  const { truncation } = JSON.parse(await readFile(path.join(folder, "tokenizer.json"), "utf8"));
  assert.equal(
    truncation.max_length,
    9,
    "the file asks for truncation, which transformers does only when it is told to",
  );
  for (const [name, where] of [
    ["lower", folder],
    ["cased", copy],
  ] as const) {
    const tokenizer = await openTokenizer(where);
    assert.equal(expected[name].length, texts.length);
    const wrong = texts.flatMap((text, index) => {
      const ids = tokenizer.tokenize(text);
      const wanted = expected[name][index];
      return JSON.stringify(ids) === JSON.stringify(wanted) ? [] : [{ name, text, ids, wanted }];
    });
    assert.deepEqual(wrong, []);
  }
  assert.notDeepEqual(expected.lower, expected.cased);
  await rm(copy, { recursive: true });
});

test("CLIP's ids are those of transformers, and none is cut off", async () => {
  const expected = await readJson<{ texts: string[]; ids: number[][] }>("text/clip.json");
  const all = [...texts, ...expected.texts];
  assert.equal(expected.ids.length, all.length);
  assert.ok(expected.ids.some((ids) => ids.length > 77));
  const tokenizer = await openTokenizer(path.join(fixtures, "clip", "clip-tiny"));
  // Letters of Unicode 17: Node may know them already, the tokenizers that transformers drives do not.
  const newLetters = /[\u{323b0}-\u{33479}]/u;
  assert.ok(all.filter((text) => newLetters.test(text)).length <= 2);
  const wrong = all.flatMap((text, index) => {
    if (newLetters.test(text)) return [];
    const ids = tokenizer.tokenize(text);
    const wanted = expected.ids[index];
    return JSON.stringify(ids) === JSON.stringify(wanted) ? [] : [{ text, ids, wanted }];
  });
  assert.deepEqual(wrong, []);
});

test("BERT's sigma at the end of a word is as elsewhere", async () => {
  const copy = await mkdtemp(path.join(os.tmpdir(), "sigma-"));
  await cp(path.join(fixtures, "retrieval", "blip2-itm-tiny"), copy, { recursive: true });
  const file = path.join(copy, "tokenizer.json");
  const json = JSON.parse(await readFile(file, "utf8"));
  const next = Math.max(...Object.values<number>(json.model.vocab)) + 2; // the one between is <image>
  Object.assign(json.model.vocab, { ασ: next, ας: next + 1 });
  await writeFile(file, JSON.stringify(json));
  const tokenizer = await openTokenizer(copy);
  assert.deepEqual(tokenizer.tokenize("ΑΣ").slice(1, -1), [next]);
  assert.deepEqual(tokenizer.tokenize("ας").slice(1, -1), [next + 1]);
  await rm(copy, { recursive: true });
});

for (const model of ["blip2-opt-tiny", "blip2-opt-sharded", "blip2-opt-bf16", "blip2-t5-tiny", "blip2-t5-half"]) {
  test(`${model}: prompts and captions of every case`, async () => {
    const config = await readJson<{ image_token_index: number; num_query_tokens: number }>(
      `models/${model}/config.json`,
    );
    const { cases } = await readJson<{
      cases: { prompt: string | null; input_ids: number[]; token_ids: number[]; text: string }[];
    }>(`models/${model}/expected.json`);
    const tokenizer = await openTokenizer(folderOf(model));
    const slots = new Array<number>(config.num_query_tokens).fill(config.image_token_index);
    for (const { prompt, input_ids, token_ids, text } of cases) {
      assert.deepEqual([...slots, ...tokenizer.tokenize(prompt)], input_ids);
      assert.equal(tokenizer.detokenize(token_ids), text);
    }
  });
}

for (const model of ["blip-caption-tiny", "blip-caption-half", "blip-vqa-tiny", "blip-vqa-half"]) {
  test(`${model}: prompts or questions, and answers, of every case`, async () => {
    const { cases } = await readJson<{
      cases: { prompt: string | null; text_ids: number[]; token_ids: number[]; text: string }[];
    }>(`blip/${model}/expected.json`);
    const tokenizer = await openTokenizer(path.join(fixtures, "blip", model));
    for (const { prompt, text_ids, token_ids, text } of cases) {
      assert.deepEqual(tokenizer.tokenize(prompt), text_ids);
      assert.equal(tokenizer.detokenize(token_ids), text);
    }
    assert.ok(cases.some(({ text }) => text.startsWith("##")) || cases.some(({ text }) => text.includes(" ")));
  });
}

test("BLIP's captions begin with [DEC] in place of [CLS] and without [SEP]; its other kinds read both", async () => {
  const captions = await openTokenizer(path.join(fixtures, "blip", "blip-caption-tiny"));
  const config = await readJson<{ text_config: { bos_token_id: number; sep_token_id?: number } }>(
    "blip/blip-caption-tiny/config.json",
  );
  const { bos_token_id: bos, sep_token_id: sep } = config.text_config;
  assert.equal(sep, 3);
  assert.deepEqual([captions.tokenize(null), captions.tokenize("")], [[bos], [bos]]);
  const words = captions.tokenize("a photo").slice(1);
  assert.ok(words.length > 1);
  assert.equal(captions.tokenize("a photo")[0], bos);
  for (const [config, expected] of [
    [{ model_type: "blip" }, [30522, ...words]],
    [{ model_type: "blip", architectures: ["BlipForQuestionAnswering"] }, [2, ...words, sep]],
    [{ model_type: "blip", architectures: ["BlipForImageTextRetrieval"] }, [2, ...words, sep]],
    [{ model_type: "another", architectures: ["BlipForConditionalGeneration"] }, [2, ...words, sep]],
  ] as const) {
    await withCopy(
      (folder) => writeFile(path.join(folder, "config.json"), JSON.stringify(config)),
      async (folder) => assert.deepEqual((await openTokenizer(folder)).tokenize("a photo"), expected),
      path.join(fixtures, "blip", "blip-caption-tiny"),
    );
  }
  await withCopy(
    (folder) => writeFile(path.join(folder, "config.json"), JSON.stringify({ model_type: "blip" })),
    async (folder) => assert.deepEqual((await openTokenizer(folder)).tokenize(null), [30522]),
    path.join(fixtures, "blip", "blip-caption-tiny"),
  );
});

test("no prompt is the configuration's bos, an empty one the tokenizer's", async () => {
  const tokenizer = await openTokenizer(folderOf("blip2-opt-bf16"));
  assert.deepEqual(tokenizer.tokenize(null), [7]);
  assert.deepEqual(tokenizer.tokenize(""), [3]);
});

test("ask frames the question and changes nothing in it", () => {
  assert.equal(questionPrompt(" what  is this?"), "Question:  what  is this? Answer:");
});

test("decoding no ids, or ids that no token has, gives an empty text", async () => {
  const tokenizer = await openTokenizer(folderOf("blip2-opt-tiny"));
  assert.equal(tokenizer.detokenize([]), "");
  assert.equal(tokenizer.detokenize([516, 99_999, -1, 2]), "");
});

test("texts that cannot be taken are refused by one sentence", async () => {
  const tokenizer = await openTokenizer(folderOf("blip2-opt-tiny"));
  const refused = (text: string, message: RegExp) =>
    assert.throws(
      () => tokenizer.tokenize(text),
      (error) => error instanceof TokenizerError && error.name === "TokenizerError" && message.test(error.message),
    );
  refused("a\ud800b", /well-formed Unicode.*at 1$/);
  refused("\udc00\ud800", /surrogate pair at 0$/);
  refused("a".repeat(maxTextLength + 1), /at most 1048576 characters, got 1048577/);
  refused("a <image> b", /expected no <image>/);
});

const kinds = [
  ["OPT's byte pairs", "models/blip2-opt-tiny"],
  ["CLIP's byte pairs", "clip/clip-tiny"],
  ["BERT's word pieces", "retrieval/blip2-itm-tiny"],
  ["BERT's word pieces with [DEC]", "blip/blip-caption-tiny"],
  ["T5's pieces", "models/blip2-t5-tiny"],
] as const;

for (const [kind, where] of kinds) {
  test(`${kind}: halves of surrogate pairs and too long texts are refused, control characters and strange scripts are not`, async () => {
    const tokenizer = await openTokenizer(path.join(fixtures, where));
    for (const text of ["a\ud800b", "\udc00", "ok \ud83d", "\udc00\ud800"]) {
      assert.throws(() => tokenizer.tokenize(text), { name: "TokenizerError", message: /well-formed Unicode/ }, text);
    }
    const message = /at most 1048576 characters, got 1048577/;
    assert.throws(() => tokenizer.tokenize("a".repeat(maxTextLength + 1)), { name: "TokenizerError", message });
    for (const text of [
      "\u0000\u0001\u001f\u007f\u0085",
      "\u202eabc\u202c \u05e9\u05dc\u05d5\u05dd",
      "\u732b\u304c\u4e8c\u5339",
      "\ud83d\ude00",
    ]) {
      const ids = tokenizer.tokenize(text);
      assert.ok(ids.length > 0 && ids.every((id) => Number.isInteger(id) && id >= 0), text);
    }
  });
}

test("T5's tokenizer refuses a word that its package cannot take, and takes what is as long with a space in it", async () => {
  const tokenizer = await openTokenizer(folderOf("blip2-t5-tiny"));
  assert.throws(() => tokenizer.tokenize(`a ${"b".repeat(maxWordLength + 1)} c`), {
    name: "TokenizerError",
    message: "text: expected words of at most 100000 characters, got one of 100001; put spaces into the text",
  });
  assert.equal(tokenizer.tokenize(`${"a".repeat(maxWordLength)} a`).length > maxWordLength, true);
});

test("a text of a million characters is encoded in seconds, with or without spaces", async () => {
  const tokenizer = await openTokenizer(folderOf("blip2-opt-tiny"));
  for (const piece of ["a", "the cat, "]) {
    const text = piece.repeat(Math.floor(maxTextLength / piece.length));
    const started = performance.now();
    const ids = tokenizer.tokenize(text);
    assert.ok(performance.now() - started < 20_000, `${piece}: ${performance.now() - started} ms`);
    assert.equal(tokenizer.detokenize(ids), text.trim());
  }
});

async function withCopy(
  change: (folder: string) => Promise<void>,
  check: (folder: string) => Promise<void>,
  from = folderOf("blip2-opt-tiny"),
) {
  const folder = await mkdtemp(path.join(os.tmpdir(), "tokenizer-"));
  try {
    for (const file of ["tokenizer.json", "tokenizer_config.json", "config.json"]) {
      await cp(path.join(from, file), path.join(folder, file));
    }
    await change(folder);
    await check(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

for (const [what, content, message] of [
  ["missing", null, /tokenizer\.json: expected the checkpoint's tokenizer\.json, got no such file/],
  ["cut", '{"model":', /tokenizer\.json: expected a JSON object, got/],
  ["a list", "[]", /expected a JSON object, got other JSON/],
  ["of no kind", '{"model": {"type": "Other"}}', /expected a tokenizer of a supported kind/],
] as const) {
  test(`a tokenizer.json that is ${what} is refused`, async () => {
    await withCopy(
      async (folder) => {
        const file = path.join(folder, "tokenizer.json");
        await (content === null ? rm(file) : writeFile(file, content));
      },
      async (folder) => {
        await assert.rejects(
          openTokenizer(folder),
          (error) => error instanceof TokenizerError && message.test(error.message),
        );
      },
    );
  });
}

test("tokens with a role are special even where tokenizer.json lists none of them", async () => {
  const text = "a</s>b <pad> c";
  const whole = await openTokenizer(folderOf("blip2-opt-tiny"));
  await withCopy(
    async (folder) => {
      const file = path.join(folder, "tokenizer.json");
      const content = JSON.parse(await readFile(file, "utf8"));
      await writeFile(file, JSON.stringify({ ...content, added_tokens: [] }));
      const config = path.join(folder, "tokenizer_config.json");
      const { added_tokens_decoder: _, ...rest } = JSON.parse(await readFile(config, "utf8"));
      await writeFile(config, JSON.stringify(rest));
    },
    async (folder) => {
      const tokenizer = await openTokenizer(folder);
      assert.deepEqual(tokenizer.tokenize(text), whole.tokenize(text));
      assert.equal(tokenizer.detokenize(tokenizer.tokenize(text)), "ab  c");
    },
  );
});

test("U+0085 is white space and U+FEFF is none, which shows where merges join a space with their bytes", async () => {
  await withCopy(
    async (folder) => {
      const file = path.join(folder, "tokenizer.json");
      const content = JSON.parse(await readFile(file, "utf8"));
      const { vocab, merges } = content.model;
      // The last two merges make way.
      for (const pair of [
        ["Ġ", "ï"],
        ["Ġ", "Â"],
      ]) {
        const replaced = merges.pop().join("");
        vocab[pair.join("")] = vocab[replaced];
        delete vocab[replaced];
      }
      merges.push(["Ġ", "Â"], ["Ġ", "ï"]);
      await writeFile(file, JSON.stringify(content));
    },
    async (folder) => {
      // From transformers 4.57.6 with the same change.
      const tokenizer = await openTokenizer(folder);
      assert.deepEqual(tokenizer.tokenize("a \u0085b \ufeffc"), [2, 68, 224, 130, 231, 69, 511, 123, 127, 70]);
      assert.deepEqual(
        tokenizer.tokenize("a \u0085\u0085 \ufeff\ufeff "),
        [2, 68, 510, 231, 130, 231, 511, 123, 127, 175, 123, 127, 224],
      );
    },
  );
});

test("clean-up follows tokenizer_config.json and is off where it says nothing", async () => {
  const ids = (await openTokenizer(folderOf("blip2-opt-tiny"))).tokenize("a , b . c ? d 's");
  for (const [value, wanted] of [
    [true, "a, b. c? d's"],
    [false, "a , b . c ? d 's"],
    [undefined, "a , b . c ? d 's"],
  ] as const) {
    await withCopy(
      async (folder) => {
        const file = path.join(folder, "tokenizer_config.json");
        const config = JSON.parse(await readFile(file, "utf8"));
        await writeFile(file, JSON.stringify({ ...config, clean_up_tokenization_spaces: value }));
      },
      async (folder) => assert.equal((await openTokenizer(folder)).detokenize(ids), wanted),
    );
  }
});

test("a compiled map of strings as the normaliser", async () => {
  const { charsmap, changed, ids } = unigram.mapped;
  const normalize = precompiledNormalizer(charsmap);
  assert.ok(changed.length > 20);
  for (const [text, wanted] of changed) assert.equal(normalize(text), wanted);
  await withCopy(
    async (folder) => {
      const file = path.join(folder, "tokenizer.json");
      const content = JSON.parse(await readFile(file, "utf8"));
      const normalizer = { type: "Precompiled", precompiled_charsmap: charsmap };
      await writeFile(file, JSON.stringify({ ...content, normalizer }));
    },
    async (folder) => {
      const tokenizer = await openTokenizer(folder);
      assert.deepEqual(
        texts.map((text) => tokenizer.tokenize(text)),
        ids,
      );
    },
    folderOf("blip2-t5-half"),
  );
  for (const bad of ["", "AAAA", "BQAAAAAAAAA=", "CAAAAAAAAAA="]) {
    assert.throws(() => precompiledNormalizer(bad), {
      name: "TokenizerError",
      message: /expected precompiled_charsmap/,
    });
  }
});

test("without a prompt T5 reads what its configuration names, and says so where it names nothing", async () => {
  assert.deepEqual((await openTokenizer(folderOf("blip2-t5-tiny"))).tokenize(null), [1]);
  assert.deepEqual((await openTokenizer(folderOf("blip2-t5-half"))).tokenize(null), [4]);
  await withCopy(
    async (folder) => {
      const file = path.join(folder, "config.json");
      const { text_config, ...rest } = JSON.parse(await readFile(file, "utf8"));
      await writeFile(file, JSON.stringify({ ...rest, text_config: { ...text_config, bos_token_id: undefined } }));
    },
    async (folder) => {
      const tokenizer = await openTokenizer(folder);
      assert.throws(() => tokenizer.tokenize(null), { name: "TokenizerError", message: /got none; give a prompt/ });
      assert.deepEqual(tokenizer.tokenize(""), [1]);
    },
    folderOf("blip2-t5-tiny"),
  );
});
