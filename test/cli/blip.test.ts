// BLIP on the command line: what transformers answers, and each kind refused where another is wanted.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Case, commandOf, expectedLine, images, model, runCli } from "./run-cli.ts";

interface CaseWithHalf extends Case {
  readonly f16?: Pick<Case, "text" | "token_ids">;
}

/** Of a checkpoint: greedy and beams, one with a prompt or question of several words. */
function chosen(cases: readonly CaseWithHalf[]): CaseWithHalf[] {
  const beams = cases.find(
    ({ command }) => command.includes("--num-beams") && command.some((word) => word.includes(" ")),
  );
  return cases.slice(0, 1).concat(beams ?? []);
}

for (const [name, dtype] of [
  ["blip-caption-tiny", "f32"],
  ["blip-vqa-tiny", "f32"],
  ["blip-vqa-half", "f16"],
] as const) {
  const { cases }: { cases: CaseWithHalf[] } = JSON.parse(readFileSync(join(model(name), "expected.json"), "utf8"));
  const robust = dtype === "f16" ? cases.flatMap((each) => (each.f16 ? [{ ...each, ...each.f16 }] : [])) : cases;
  for (const each of chosen(robust)) {
    test(`${name} ${dtype}: ${each.command.join(" ")}`, async () => {
      const { status, stdout, stderr } = await runCli(commandOf(each, name, dtype));
      assert.equal(stdout, `${JSON.stringify(expectedLine(each))}\n`, stderr);
      assert.equal(status, 0);
    });
  }
}

test("index and search: one vector an image, and what is found has the cosine and the match of transformers", async () => {
  const { cases }: { cases: { image: string; text: string; itm: number; itc: number }[] } = JSON.parse(
    readFileSync(join(model("blip-itm-tiny"), "expected.json"), "utf8"),
  );
  const folder = mkdtempSync(join(tmpdir(), "blipfleet-blip-"));
  const file = join(folder, "pictures.index");
  const text = "Two dogs, and a cat!";
  const wanted = cases.filter((each) => each.text === text);
  const pictures = wanted.map(({ image }) => join(images, image)).sort();
  const indexed = await runCli(["index", ...pictures, "--out", file, "--model", model("blip-itm-tiny")]);
  assert.equal(indexed.status, 0, indexed.stderr);
  const { status, stdout, stderr } = await runCli(["search", text, "--index", file, "--format", "jsonl"]);
  assert.equal(status, 0, stderr);
  const found: { image: string; itc: number; itm: number }[] = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(found.length, 3);
  for (const { image, itc, itm } of wanted) {
    const line = found.find((each) => each.image === join(images, image)) ?? assert.fail(image);
    assert.ok(Math.abs(line.itc - itc) <= 2e-5, `${image}: itc ${line.itc} for ${itc}`);
    assert.ok(Math.abs(line.itm - itm) <= 2e-5, `${image}: itm ${line.itm} for ${itm}`);
  }
  rmSync(folder, { recursive: true });
});

test("each kind is refused where another is wanted, with the commands that fit", async () => {
  const image = join(images, "clear.png");
  const kinds = {
    "blip-caption-tiny":
      "BlipForConditionalGeneration, which captions images; use it with caption, capfilt and job submit --task caption or capfilt",
    "blip-vqa-tiny":
      "BlipForQuestionAnswering, which answers questions; use it with ask, chat and job submit --task ask",
    "blip-itm-tiny":
      "BlipForImageTextRetrieval, which compares images with texts; use it with match, index, search, capfilt --filter-model and job submit --task match or index",
  } as const;
  const refused: [keyof typeof kinds, string[]][] = [
    ["blip-vqa-tiny", ["caption", image]],
    ["blip-itm-tiny", ["caption", image]],
    ["blip-caption-tiny", ["ask", image, "what?"]],
    ["blip-vqa-tiny", ["match", image, "red"]],
  ];
  for (const [name, args] of refused) {
    const { status, stdout, stderr } = await runCli([...args, "--model", model(name)]);
    assert.equal(status, 2, stderr);
    assert.equal(stdout, "");
    assert.ok(stderr.trimEnd().endsWith(`got ${kinds[name]}`), stderr);
  }
});

test("a question that is too long, and one without words", async () => {
  const long = "cats and dogs ".repeat(30);
  const args = ["ask", join(images, "clear.png"), long, " ", "--model", model("blip-vqa-tiny"), "--format", "jsonl"];
  const { status, stdout, stderr } = await runCli(args);
  assert.equal(status, 1, stderr);
  const [refused, answered] = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(refused.question, long);
  assert.match(refused.error.message, /^generate: expected at most 37 ids of text, got \d+; shorten the text$/);
  assert.equal(answered.question, " ");
  assert.ok(answered.token_ids.length > 0);
});
