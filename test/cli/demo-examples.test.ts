// The demo as the README shows it: the trained model on the example images, what is true beside it, and three answers.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { isTrue } from "../../src/cli/demo.ts";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-demo-examples-test-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const lines = (file: string) =>
  readFileSync(file, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

test("the demo model's captions stand beside the true ones, and it answers three questions", async () => {
  const output = join(folder, "captions.jsonl");
  const { status, stdout, stderr } = await runCli(["demo", "--output", output]);
  assert.equal(status, 0, stderr);
  const truths = lines(join(packageRoot, "examples", "captions.jsonl"));
  const results = lines(output);
  assert.equal(results.length, 24);
  const right = results.filter(
    ({ image, text }, i) => `images/${image}` === truths[i].image && isTrue(text, truths[i].text),
  );
  assert.ok(right.length >= 21, `${right.length} of 24`);
  assert.match(stdout, new RegExp(`^${right.length} of 24 captions are true$`, "m"));
  const told = stdout.split("\n");
  assert.equal(told.filter((line) => /^scene-\d\d\.(png|jpg) .* true$/.test(line)).length, right.length);
  assert.equal(told.filter((line) => /^scene-\d\d\.(png|jpg) .* not true: \w/.test(line)).length, 24 - right.length);
  const answers = [
    ["how many boats are there?", /\? +two$/],
    ["where is the car?", /\? +(?:top |bottom )?(?:left|middle|right|top|bottom)$/],
    ["what colour is the background?", /\? +gray$/],
  ] as const;
  for (const [question, answer] of answers) {
    const answered = told.find((line) => line.startsWith(`scene-07.png  ${question}`));
    assert.match(answered ?? "", answer, question);
  }
});
