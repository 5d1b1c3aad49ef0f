// InstructBLIP on the command line: what transformers answers, several questions at once, and given answers ranked.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Case, commandOf, expectedLine, images, model, runCli } from "./run-cli.ts";

interface Expected {
  readonly cases: readonly (Case & { readonly prompt: string; readonly f16?: Pick<Case, "text" | "token_ids"> })[];
  /** The likeliest answer first; of one fixture. */
  readonly ranked: {
    readonly image: string;
    readonly question: string;
    readonly answers: readonly {
      readonly text: string;
      readonly token_ids: readonly number[];
      readonly score: number;
    }[];
  };
}

const read = (name: string): Expected => JSON.parse(readFileSync(join(model(name), "expected.json"), "utf8"));
const vicuna = "instructblip-vicuna-tiny";

test("a question; no prompt, which is the empty instruction; beams of the model with T5", async () => {
  const half = read("instructblip-t5-half").cases.flatMap((each) => (each.f16 ? [{ ...each, ...each.f16 }] : []));
  const { cases } = read(vicuna);
  for (const [name, dtype, each] of [
    [vicuna, "f32", cases.find(({ command }) => command[0] === "ask")],
    [vicuna, "f32", cases.find(({ command }) => command[0] === "caption" && !command.includes("--prompt"))],
    ["instructblip-t5-half", "f16", half.find(({ command }) => command.includes("--num-beams"))],
  ] as const) {
    assert.ok(each);
    const { status, stdout, stderr } = await runCli(commandOf(each, name, dtype));
    assert.equal(stdout, `${JSON.stringify(expectedLine(each))}\n`, stderr);
    assert.equal(status, 0);
  }
});

test("given answers have the scores of transformers' log-probabilities, and one that is too long fails alone", async () => {
  const { image, question, answers } = read(vicuna).ranked;
  const folder = mkdtempSync(join(tmpdir(), "blipfleet-instructblip-"));
  const file = join(folder, "answers.txt");
  writeFileSync(
    file,
    [...answers]
      .reverse()
      .map(({ text }) => `${text}\n`)
      .join(""),
  );
  const long = "cats and dogs ".repeat(20);
  const args = ["ask", join(images, image), question, long, "--answers", file, "--all-scores", "--format", "jsonl"];
  const { status, stdout, stderr } = await runCli([...args, "--model", model(vicuna)]);
  assert.equal(status, 1, stderr);
  const lines = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(lines.length, answers.length + 1);
  for (const [i, { text, token_ids, score }] of answers.entries()) {
    assert.deepEqual([lines[i].text, lines[i].token_ids], [text, token_ids]);
    assert.ok(Math.abs(lines[i].score - score) <= 1e-3, `${text}: ${lines[i].score} for ${score}`);
  }
  assert.match(
    lines.at(-1).error.message,
    /^text: expected at most \d+ tokens, the positions that the model has, got \d+; /,
  );
  rmSync(folder, { recursive: true });
});
