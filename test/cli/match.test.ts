// blipfleet match against what transformers answers, and its errors as data.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { argumentOf, images, model, runCli } from "./run-cli.ts";

interface Case {
  readonly image: string;
  readonly text: string;
  readonly itm: number;
  readonly itc: number;
  readonly f16: { readonly itm: number; readonly itc: number };
}

const retrieval = (name: string) =>
  name.startsWith("blip-") ? model(name) : join(packageRoot, "test", "fixtures", "retrieval", name);
const linesOf = (stdout: string) =>
  stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

for (const [name, dtype, tolerance] of [
  ["blip2-itm-tiny", "f32", 2e-5],
  ["blip2-itm-tiny", "auto", 2e-5],
  ["blip2-itm-half", "auto", 2e-3],
  ["blip-itm-tiny", "auto", 2e-5],
  ["blip-itm-half", "auto", 2e-3],
] as const) {
  test(`${name} --dtype ${dtype}: a line per text, in order, as transformers has it`, async () => {
    const { cases }: { cases: Case[] } = JSON.parse(readFileSync(join(retrieval(name), "expected.json"), "utf8"));
    const image = join(images, "turned.jpg");
    const wanted = cases.filter((each) => each.image === "turned.jpg");
    const texts = wanted.map(({ text }) => argumentOf(text));
    const args = ["match", image, ...texts, "--model", retrieval(name), "--dtype", dtype, "--format", "jsonl"];
    const { status, stdout, stderr } = await runCli(args);
    assert.equal(status, 0, stderr);
    const lines = linesOf(stdout);
    assert.deepEqual(
      lines.map((line) => [Object.keys(line), line.image, line.text]),
      texts.map((text) => [["image", "text", "itm", "itc"], image, text]),
    );
    for (const [i, each] of wanted.entries()) {
      const { itm, itc } = name.endsWith("half") ? each.f16 : each;
      assert.ok(Math.abs(lines[i].itm - itm) <= tolerance, `${each.text}: itm ${lines[i].itm} for ${itm}`);
      assert.ok(Math.abs(lines[i].itc - itc) <= tolerance, `${each.text}: itc ${lines[i].itc} for ${itc}`);
    }
  });
}

test("a text that the model cannot read fails alone; an image that cannot be read fails each text", async () => {
  const args = ["--model", retrieval("blip2-itm-tiny"), "--format", "jsonl"];
  const long = "of all ".repeat(30);
  const some = await runCli(["match", join(images, "clear.png"), "red", long, "red", ...args]);
  assert.equal(some.status, 1, some.stderr);
  const [first, second, third] = linesOf(some.stdout);
  assert.deepEqual(Object.keys(second), ["image", "text", "error"]);
  assert.equal(second.text, long);
  assert.equal(second.error.type, "TextError");
  assert.match(second.error.message, /^text: expected at most \d+ tokens, the positions that the model has, got \d+;/);
  assert.deepEqual(third, first);
  const none = await runCli(["match", join(images, "absent.png"), "red", "blue", ...args]);
  assert.equal(none.status, 1, none.stderr);
  for (const line of linesOf(none.stdout)) assert.match(line.error.message, /absent\.png: .* got no such file$/);
  assert.equal(linesOf(none.stdout).length, 2);
});

test("text for people", async () => {
  const args = ["match", join(images, "clear.png"), "red\nand blue", "--model", retrieval("blip2-itm-tiny")];
  const { status, stdout } = await runCli(args);
  assert.equal(status, 0);
  assert.match(stdout, /^itm 0\.\d{4} {2}itc [ -]\d\.\d{4} {2}red and blue\n$/);
});

test("each kind of model is refused where the other is wanted, with the commands that fit", async () => {
  const image = join(images, "clear.png");
  const compares = retrieval("blip2-itm-tiny");
  for (const args of [
    ["caption", image, "--model", compares],
    ["ask", image, "what?", "--model", compares],
  ]) {
    const { status, stdout, stderr } = await runCli(args);
    assert.equal(status, 2, stderr);
    assert.equal(stdout, "");
    assert.match(
      stderr,
      /^blipfleet: .* got Blip2ForImageTextRetrieval, which compares images with texts; use it with match, index, search, capfilt --filter-model and job submit --task match or index$/m,
    );
  }
  const { status, stderr } = await runCli(["match", image, "red", "--model", model("blip2-opt-tiny")]);
  assert.equal(status, 2, stderr);
  assert.match(
    stderr,
    /^blipfleet: .* got Blip2ForConditionalGeneration, which writes texts; use it with caption, ask, chat, capfilt and job submit$/m,
  );
  const doctor = await runCli(["doctor", "--model", compares]);
  assert.match(
    doctor.stdout,
    /^ok {3}model .*blip-2-retrieval as f32, weights encode .*, query .*vectors 5 x 10, \d+ positions/m,
  );
});
