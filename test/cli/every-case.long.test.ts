// Every case of every fixture through the command line, in f32 and, where transformers' answer is robust, in f16.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { clipCases, compareClassified } from "./clip-cases.ts";
import { type Case, commandOf, expectedLine, model, runCli } from "./run-cli.ts";

interface CaseWithHalf extends Case {
  readonly f16?: Pick<Case, "text" | "token_ids">;
}

const names = [
  ...["blip2-opt-tiny", "blip2-opt-sharded", "blip2-opt-bf16", "blip2-t5-tiny", "blip2-t5-half"],
  ...["blip-caption-tiny", "blip-caption-half", "blip-vqa-tiny", "blip-vqa-half"],
  ...["instructblip-vicuna-tiny", "instructblip-t5-half", "visualglm-tiny"],
];
for (const name of names) {
  const { cases }: { cases: CaseWithHalf[] } = JSON.parse(readFileSync(join(model(name), "expected.json"), "utf8"));
  // Some cases are turns of a conversation, which no one command has.
  for (const each of cases.filter(({ command }) => command)) {
    for (const [dtype, expected] of [
      ["f32", each],
      ["f16", each.f16 && { ...each, ...each.f16 }],
    ] as const) {
      if (!expected) continue;
      test(`${name} ${dtype}: ${each.command.join(" ")}`, async () => {
        const { status, stdout, stderr } = await runCli(commandOf(each, name, dtype));
        assert.equal(stdout, `${JSON.stringify(expectedLine(expected))}\n`, stderr);
        assert.equal(status, 0);
      });
    }
  }
}

for (const name of ["clip-tiny", "clip-half"]) {
  for (const picture of clipCases(name).pictures) {
    for (const dtype of ["f32", "f16"] as const) {
      test(`${name} ${dtype}: classify ${picture}`, () => compareClassified(name, picture, dtype, dtype));
    }
  }
}
