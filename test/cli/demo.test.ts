// The demo as a user runs it: captions beside file names, timings, where things are, nothing left behind.

import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { captionLines, isTrue } from "../../src/cli/demo.ts";
import { oneLine } from "../../src/cli/output.ts";
import { images, runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-demo-test-"));
after(() => rmSync(folder, { recursive: true, force: true }));

test("the demo captions a folder and says what it did", async () => {
  const pictures = join(folder, "pictures");
  mkdirSync(pictures);
  const names = ["clear.png", "shapes.png", "turned.jpg"];
  for (const name of names) copyFileSync(join(images, name), join(pictures, name));
  const output = join(folder, "captions.jsonl");
  const temporary = join(folder, "tmp");
  mkdirSync(temporary);
  const environment = { ...process.env, TMPDIR: temporary };
  const { status, stdout, stderr } = await runCli(["demo", "--images", pictures, "--output", output], environment);
  assert.equal(status, 0, stderr);
  const results = readFileSync(output, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    results.map(({ image }) => image),
    names,
  );
  for (const { image, text } of results) {
    assert.equal(
      stdout.split("\n").some((line) => line.startsWith(`${image} `) && line.endsWith(oneLine(text))),
      true,
      stdout,
    );
  }
  assert.match(stdout, /^encode +3 made, 0 reused, [\d.]+ s/m);
  assert.match(stdout, /^generate +3 made, 0 reused, [\d.]+ s/m);
  assert.match(stdout, new RegExp(`^results +${output}$`, "m"));
  assert.match(stdout, /^Temporal UI +http:\/\/127\.0\.0\.1:\d+/m);
  assert.match(stderr, /model/, "says which model it uses");
  assert.deepEqual(
    readdirSync(temporary).filter((name) => name.startsWith("blipfleet-demo-")),
    [],
  );
});

test("captions stand beside what is true where that is known, and are counted", () => {
  const results = [
    { image: "a.png", text: "two dogs on a red background" },
    { image: "long-name.jpg", text: "a dog" },
    { image: "c.png", error: { message: "no image" } },
  ];
  assert.deepEqual(captionLines(results, null), [
    "a.png          two dogs on a red background",
    "long-name.jpg  a dog",
    "c.png          failed: no image",
  ]);
  const truths = new Map([
    ["a.png", "two dogs on a red background"],
    ["long-name.jpg", "a dog on a red background"],
    ["c.png", "a cat"],
  ]);
  assert.deepEqual(captionLines(results, truths), [
    "a.png          two dogs on a red background  true",
    "long-name.jpg  a dog                         not true: a dog on a red background",
    "c.png          failed: no image              not true: a cat",
    "1 of 3 captions are true",
  ]);
});

test("a caption is true when it names the same things, in whatever order", () => {
  const truth = "three crowns, two clocks and a dog on a green background";
  assert.equal(isTrue("three crowns, a dog and two clocks on a green background", truth), true);
  assert.equal(isTrue("two crowns, three clocks and a dog on a green background", truth), false);
  assert.equal(isTrue("three crowns and two clocks on a green background", truth), false);
  assert.equal(isTrue("three crowns, two clocks and a dog on a gray background", truth), false);
  assert.equal(isTrue(undefined, truth), false);
});
