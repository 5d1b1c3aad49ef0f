import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { stopLength } from "../../src/text/stop-strings.ts";
import { openTokenizer } from "../../src/text/tokenizer.ts";
import { fixtures } from "../fixture-files.ts";

interface Case {
  readonly checkpoint: string;
  readonly ids: readonly number[];
  readonly stop: string;
  readonly length: number | null;
}

const { cases } = JSON.parse(readFileSync(join(fixtures, "text", "stop-strings.json"), "utf8")) as { cases: Case[] };

test("texts end where transformers ends them", async () => {
  assert.ok(cases.length > 100 && cases.some(({ length }) => length === null));
  for (const checkpoint of new Set(cases.map((each) => each.checkpoint))) {
    const tokenizer = await openTokenizer(join(fixtures, checkpoint));
    for (const { ids, stop, length } of cases.filter((each) => each.checkpoint === checkpoint)) {
      const label = `${checkpoint}: ${JSON.stringify(stop)} in ${JSON.stringify(tokenizer.continuation(ids))}`;
      assert.equal(stopLength(tokenizer, ids, [stop]), length, label);
    }
  }
});

test("the first of several strings, ids that were looked at, and specials", async () => {
  const tokenizer = await openTokenizer(join(fixtures, "models/blip2-opt-tiny"));
  const [bos = 0, ...ids] = tokenizer.tokenize(" a photo of two cats");
  const at = (stop: string) => stopLength(tokenizer, ids, [stop]) ?? assert.fail(stop);
  assert.ok(at("photo") < at("two") && at("two") < at("cat"));
  assert.equal(stopLength(tokenizer, ids, ["cat", "zebra", "two"]), at("two"));
  assert.equal(stopLength(tokenizer, ids, ["photo"], at("photo") - 1), at("photo"));
  assert.equal(stopLength(tokenizer, ids, []), null);
  assert.equal(stopLength(tokenizer, [], ["a"]), null);
  assert.equal(stopLength(tokenizer, [bos, ...ids], ["two"]), at("two") + 1, "a special has no text");
});

test("a character of several ids is seen once it is whole", async () => {
  const tokenizer = await openTokenizer(join(fixtures, "models/blip2-opt-tiny"));
  const ids = tokenizer.tokenize(" x 猫 y").slice(1);
  const length = stopLength(tokenizer, ids, ["猫"]) ?? assert.fail("no end");
  assert.ok(tokenizer.continuation(ids.slice(0, length)).endsWith("猫"));
  assert.ok(!tokenizer.continuation(ids.slice(0, length - 1)).includes("猫"));
});
