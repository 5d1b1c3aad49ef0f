// Sampling, stop strings, streaming and given answers on the command line, with a checkpoint of random weights.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { images, model, runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-texts-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const tiny = ["--model", model("blip2-opt-tiny"), "--dtype", "f32"];
const [shapes, clear, turned] = ["shapes.png", "clear.png", "turned.jpg"].map((name) => join(images, name));
const all = [shapes, clear, turned] as string[];

interface Line {
  readonly text: string;
  readonly token_ids: readonly number[];
  readonly score?: number;
}

async function linesOf(...args: string[]): Promise<Line[]> {
  const { status, stdout, stderr } = await runCli([...args, ...tiny, "--format", "jsonl"]);
  assert.equal(status, 0, stderr);
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

test("--do-sample: an image's text is the same alone, among others and in another order; another seed gives another", async () => {
  const flags = ["--do-sample", "--temperature", "1.5", "--seed", "11"];
  const together = await linesOf("caption", ...all, ...all, ...flags);
  assert.deepEqual(
    together.slice(3).map(({ text }) => text),
    together.slice(0, 3).map(({ text }) => text),
  );
  const turnedRound = await linesOf("caption", ...all.toReversed(), ...flags);
  assert.deepEqual(
    turnedRound.map(({ token_ids }) => token_ids),
    together
      .slice(0, 3)
      .map(({ token_ids }) => token_ids)
      .toReversed(),
  );
  assert.deepEqual(await linesOf("caption", shapes ?? "", ...flags), together.slice(0, 1));
  const [other] = await linesOf("caption", shapes ?? "", ...flags.slice(0, -1), "12");
  assert.notDeepEqual(other?.token_ids, together[0]?.token_ids);
});

test("--stop ends texts with the id that completes one; --stream writes what is written at once", async () => {
  const question = "what is this?";
  const flags = ["--max-new-tokens", "24"];
  const [whole] = await linesOf("ask", shapes ?? "", question, ...flags);
  assert.ok(whole && whole.token_ids.length > 6);
  // The text of the first few ids; trimmed, so that it is part of the untrimmed text that is looked at.
  const stop = whole.text.slice(1, 4);
  const [ended] = await linesOf("ask", shapes ?? "", question, ...flags, "--stop", "zebra", "--stop", stop);
  assert.ok(ended);
  assert.ok(ended.text.includes(stop) && ended.token_ids.length < whole.token_ids.length);
  assert.deepEqual(whole.token_ids.slice(0, ended.token_ids.length), ended.token_ids);
  const plain = ["ask", shapes ?? "", question, " ", ...flags, ...tiny];
  const streamed = await runCli([...plain, "--stream"]);
  const atOnce = await runCli(plain);
  assert.equal(streamed.stdout, atOnce.stdout, streamed.stderr);
  assert.equal(atOnce.stdout.split("\n").length, 3);
});

test("--answers: the likeliest line of a file with its score; with --all-scores all of them", async () => {
  const file = join(folder, "answers.txt");
  writeFileSync(file, "red\n\n  two cats \nnobody knows what this is\nriding\n");
  const questions = ["what is this?", "how many?"];
  const lines = await linesOf("ask", shapes ?? "", ...questions, "--answers", file, "--all-scores");
  assert.equal(lines.length, 8);
  for (const half of [lines.slice(0, 4), lines.slice(4)]) {
    assert.deepEqual(half.map(({ text }) => text).sort(), ["nobody knows what this is", "red", "riding", "two cats"]);
    const scores = half.map(({ score }) => score ?? Number.NaN);
    assert.deepEqual(
      [...scores].sort((a, b) => b - a),
      scores,
      "the likeliest first",
    );
    assert.ok(scores.every((score) => score < 0));
  }
  const best = await linesOf("ask", shapes ?? "", ...questions, "--answers", file);
  assert.deepEqual(best, [lines[0], lines[4]]);
  assert.deepEqual(Object.keys(best[0] ?? {}), ["image", "question", "text", "token_ids", "score"]);
});
