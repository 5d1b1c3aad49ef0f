// The command line against what transformers answers: the same token ids, the lines as documented, errors as data.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { type Case, commandOf, expectedLine, images, model, runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-local-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Of each checkpoint: its first case, and one question with beams and a negative length penalty. */
function chosen(cases: readonly Case[]): Case[] {
  const question = cases.find(({ command }) => command[0] === "ask" && command.includes("-1.0"));
  return cases.slice(0, 1).concat(question ?? []);
}

for (const name of ["blip2-opt-tiny", "blip2-opt-sharded", "blip2-opt-bf16", "blip2-t5-tiny", "blip2-t5-half"]) {
  const { cases }: { cases: Case[] } = JSON.parse(readFileSync(join(model(name), "expected.json"), "utf8"));
  for (const each of chosen(cases)) {
    test(`${name}: ${each.command.join(" ")}`, async () => {
      const { status, stdout, stderr } = await runCli(commandOf(each, name, "f32"));
      assert.equal(stdout, `${JSON.stringify(expectedLine(each))}\n`, stderr);
      assert.equal(status, 0);
    });
  }
}

test("many images: a line each, in order, as given; an image that fails is a line with its error and status 1", async () => {
  const broken = join(folder, "broken.jpg");
  writeFileSync(broken, "no image");
  const names = ["shapes.png", "clear.png", "turned.jpg", "shapes.png"].map((name) => join(images, name));
  const paths = [...names.slice(0, 2), broken, join(folder, "absent.png"), folder, ...names.slice(2)];
  const { status, stdout, stderr } = await runCli([
    "caption",
    ...paths,
    "--model",
    model("blip2-opt-tiny"),
    "--dtype",
    "f32",
    "--format",
    "jsonl",
  ]);
  const lines = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    lines.map(({ image }) => image),
    paths,
    stderr,
  );
  assert.deepEqual(Object.keys(lines[0]), ["image", "text", "token_ids"]);
  assert.deepEqual({ ...lines[6], image: "" }, { ...lines[0], image: "" });
  for (const failed of lines.slice(2, 5)) {
    assert.deepEqual(Object.keys(failed), ["image", "error"]);
    assert.deepEqual(Object.keys(failed.error), ["type", "message"]);
    assert.equal(failed.error.type, "ImageError");
  }
  assert.match(lines[3].error.message, /absent\.png: expected a readable image file, got no such file$/);
  assert.match(
    lines[4].error.message,
    /expected an image file, got a folder; use `blipfleet job submit` for folders, --frames for/,
  );
  assert.equal(status, 1);
});

test("several questions: a line each, in order, with the question as given", async () => {
  const image = join(images, "shapes.png");
  const questions = ["what is this?", " ", "what is this?"];
  const { status, stdout, stderr } = await runCli([
    "ask",
    image,
    ...questions,
    "--model",
    model("blip2-opt-tiny"),
    "--format",
    "jsonl",
  ]);
  const lines = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    lines.map(({ question }) => question),
    questions,
    stderr,
  );
  assert.deepEqual(Object.keys(lines[0]), ["image", "question", "text", "token_ids"]);
  assert.deepEqual(lines[2], lines[0]);
  assert.equal(status, 0);
});

test("a model that is not there, or not one of ours, is wrong use with one sentence", async () => {
  for (const ref of [join(folder, "nowhere"), folder, "package.json"]) {
    const { status, stdout, stderr } = await runCli(["caption", join(images, "clear.png"), "--model", ref]);
    assert.equal(status, 2, stderr);
    assert.equal(stdout, "");
    assert.match(stderr, /^blipfleet: \w+Error: .*expected/m);
  }
});

test("a reader that has seen enough ends the command quietly", async () => {
  const paths = Array.from({ length: 40 }, () => join(images, "clear.png"));
  const { child, ended } = start(["caption", ...paths, "--model", model("blip2-opt-tiny"), "--format", "jsonl"]);
  child.stdout.once("data", () => child.stdout.destroy());
  const { status, stderr } = await ended;
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(stderr, /EPIPE/);
});

test("Ctrl-C stops cleanly: whole lines, one sentence, status 130", async () => {
  const paths = Array.from({ length: 400 }, () => join(images, "clear.png"));
  const { child, ended } = start(["caption", ...paths, "--model", model("blip2-opt-tiny"), "--format", "jsonl"]);
  let stdout = "";
  child.stdout.on("data", (data: Buffer) => {
    if (stdout === "") child.kill("SIGINT");
    stdout += data.toString("utf8");
  });
  const { status, stderr } = await ended;
  assert.equal(status, 130, stderr);
  assert.match(stderr, /blipfleet: interrupted/);
  const lines = stdout.trimEnd().split("\n");
  assert.equal(lines.length > 0 && lines.length < paths.length, true, `${lines.length} lines`);
  for (const line of lines) assert.equal(JSON.parse(line).image, paths[0]);
});

function start(args: readonly string[]) {
  const child = spawn(process.execPath, [join(import.meta.dirname, "../../src/cli/main.js"), ...args]);
  let stderr = "";
  child.stderr.on("data", (data: Buffer) => {
    stderr += data.toString("utf8");
  });
  const ended = new Promise<{ status: number | null; stderr: string }>((resolve) => {
    child.on("close", (status) => resolve({ status, stderr }));
  });
  return { child, ended };
}
