// A million characters through the tokenizers that test/text/tokenizer.test.ts gives short texts to: in bounded time, none lost.

import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { maxTextLength, openTokenizer } from "../../src/text/tokenizer.ts";
import { fixtures } from "../fixture-files.ts";

/** Milliseconds; seen up to 34 seconds on two cores with other work beside. */
const most = 90_000;

/** Ids of each repetition, at both ends of a text alike. */
async function encodes(where: string, piece: string): Promise<void> {
  const tokenizer = await openTokenizer(path.join(fixtures, where));
  const count = Math.floor(maxTextLength / piece.length);
  const started = performance.now();
  const ids = tokenizer.tokenize(piece.repeat(count));
  const took = performance.now() - started;
  assert.ok(took < most, `${where}: ${JSON.stringify(piece)} took ${took} ms`);
  const [short, shorter] = [tokenizer.tokenize(piece.repeat(8)).length, tokenizer.tokenize(piece.repeat(4)).length];
  const each = (short - shorter) / 4;
  assert.equal(ids.length, short + (count - 8) * each, `${where}: ${JSON.stringify(piece)}`);
}

for (const [where, pieces] of [
  ["clip/clip-tiny", ["the cat, ", "\u732b ", "\u05e9\u05dc\u05d5\u05dd "]],
  ["retrieval/blip2-itm-tiny", ["the cat, ", "\u732b", "\u05e9\u05dc\u05d5\u05dd "]],
  ["models/blip2-t5-tiny", ["the cat, ", "\u05e9\u05dc\u05d5\u05dd "]],
  ["models/blip2-opt-tiny", ["\u05e9\u05dc\u05d5\u05dd "]],
] as const) {
  for (const piece of pieces)
    test(`${where}: a million characters of ${JSON.stringify(piece)}`, () => encodes(where, piece));
}
