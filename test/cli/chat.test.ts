// chat on the command line: several turns about one image, its commands, and what ask and caption say with the same model.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readJson } from "../fixture-files.ts";
import { glmFolder, readGlmExpected } from "../models/glm-checkpoint.ts";
import { commandOf, expectedLine, images, model, runCli } from "./run-cli.ts";

const { cases } = await readGlmExpected();

/** Run with lines as stdin. */
function runWith(lines: readonly string[], args: readonly string[]) {
  const child = spawn(process.execPath, [join(import.meta.dirname, "../../src/cli/main.js"), ...args], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  const text = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].on("data", (data: Buffer) => {
      text[name] += data.toString("utf8");
    });
  }
  child.stdin.end(lines.map((line) => `${line}\n`).join(""));
  return new Promise<{ status: number | null; stdout: string; stderr: string }>((resolve) => {
    child.on("close", (status) => resolve({ status, ...text }));
  });
}

function linesOf(stdout: string): Record<string, unknown>[] {
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

for (const [verb, dtype] of [
  ["caption", "f32"],
  ["ask", "f16"],
] as const) {
  const given = cases.find(({ command, f16 }) => command?.[0] === verb && f16) ?? assert.fail(verb);
  test(`VisualGLM ${dtype}: ${given.command?.join(" ")}`, async () => {
    const { command = [], text, token_ids, f16 } = given;
    const answer = dtype === "f16" && f16 ? { ...given, ...f16 } : given;
    const { status, stdout, stderr } = await runCli(commandOf({ command, text, token_ids }, "visualglm-tiny", dtype));
    assert.equal(status, 0, stderr);
    assert.deepEqual(linesOf(stdout), [expectedLine({ ...answer, command })]);
  });
}

test("VisualGLM ranks given answers: the scores of the reference, the likeliest first", async () => {
  const { answers, models } = await readJson<{
    readonly answers: readonly string[];
    readonly models: Readonly<
      Record<
        string,
        readonly { readonly image: string; readonly question: string; readonly scores: readonly number[] }[]
      >
    >;
  }>("rank.json");
  const [{ image, question, scores } = assert.fail()] = models["visualglm-tiny"] ?? [];
  const folder = mkdtempSync(join(tmpdir(), "blipfleet-answers-"));
  const file = join(folder, "answers.txt");
  writeFileSync(file, answers.map((answer) => `${answer}\n`).join(""));
  const args = ["ask", join(images, image), question, "--answers", file, "--all-scores", "--model", glmFolder];
  const { status, stdout, stderr } = await runCli([...args, "--dtype", "f32", "--format", "jsonl"]);
  assert.equal(status, 0, stderr);
  const lines = linesOf(stdout);
  const order = [...new Set(answers)].sort(
    (a, b) => (scores[answers.indexOf(b)] ?? 0) - (scores[answers.indexOf(a)] ?? 0),
  );
  assert.deepEqual([...new Set(lines.map(({ text }) => text))], order);
  for (const { text, score } of lines) {
    const expected = scores[answers.indexOf(String(text))] ?? Number.NaN;
    assert.ok(Math.abs(Number(score) - expected) <= 1e-3, `${text}: ${score} for ${expected}`);
  }
  rmSync(folder, { recursive: true });
});

test("turns, /clear, /image, /quit; what is no command, and an image that is none, go on and fail in the end", async () => {
  const [shapes, turned] = [join(images, "shapes.png"), join(images, "turned.jpg")];
  const lines = [
    "图里有狗吗？",
    "",
    "  什么颜色？ ",
    "/frob",
    "/image nowhere.png",
    "/image package.json",
    "/clear",
    "图里有狗吗？",
    `/image ${turned}`,
    "what?",
    "/quit",
    "never",
  ];
  const args = ["chat", shapes, "--model", glmFolder, "--dtype", "f32", "--format", "jsonl", "--max-new-tokens", "5"];
  const { status, stdout, stderr } = await runWith(lines, args);
  assert.equal(status, 1, stderr);
  const replies = linesOf(stdout);
  assert.deepEqual(
    replies.map(({ image, turn, question }) => [image, turn, question]),
    [
      [shapes, 1, "图里有狗吗？"],
      [shapes, 2, "什么颜色？"],
      [shapes, 1, "图里有狗吗？"],
      [turned, 1, "what?"],
    ],
  );
  assert.deepEqual(replies[2], replies[0]);
  for (const { token_ids } of replies) assert.ok(Array.isArray(token_ids) && token_ids.length > 0);
  assert.match(stderr, /chat: expected \/clear, \/image FILE or \/quit, got \/frob/);
  assert.match(stderr, /ImageError: package\.json: expected JPEG, .*; the conversation about .*shapes\.png goes on/);
  assert.match(stderr, /ImageError: nowhere\.png: .*; the conversation about .*shapes\.png goes on/);
});

test("what chat cannot begin with: a folder, a file that is no image, and a language that the model does not have", async () => {
  const image = join(images, "clear.png");
  const tiny = ["--model", model("blip2-opt-tiny")];
  const refused: [number, string[], RegExp][] = [
    [
      1,
      ["chat", images, ...tiny],
      /ImageError: .*images: expected an image file, got a folder; name one of its files$/m,
    ],
    [1, ["chat", "package.json", ...tiny], /ImageError: package\.json: expected JPEG, PNG, .*/],
    [2, ["chat", image, "--language", "zh", ...tiny], /--language: expected VisualGLM, got .*blip2-opt-tiny, Blip2For/],
  ];
  for (const [wanted, args, message] of refused) {
    const { status, stdout, stderr } = await runWith([], args);
    assert.deepEqual([status, stdout], [wanted, ""], stderr);
    assert.match(stderr, message);
  }
});

test("BLIP-2: the second question is read behind the first and its answer, as ask reads such a prompt", async () => {
  const image = join(images, "clear.png");
  const common = ["--model", model("blip2-opt-tiny"), "--format", "jsonl", "--max-new-tokens", "4"];
  const { status, stdout, stderr } = await runWith(["what is it?", "where?"], ["chat", image, ...common]);
  assert.equal(status, 0, stderr);
  const [first, second] = linesOf(stdout);
  const prompt = `Question: what is it? Answer: ${first?.text}. Question: where? Answer:`;
  const caption = await runCli(["caption", image, "--prompt", prompt, ...common]);
  assert.deepEqual(second?.token_ids, linesOf(caption.stdout)[0]?.token_ids, stderr + caption.stderr);
});

test("a history that no longer fits: both numbers, what is left out, and an answer all the same", async () => {
  const question = "描述这张图片，图里有几个人，背景是什么颜色？";
  const args = [
    "chat",
    join(images, "shapes.png"),
    "--model",
    glmFolder,
    "--format",
    "jsonl",
    "--max-new-tokens",
    "12",
  ];
  const { status, stdout, stderr } = await runWith([question, question, question, question], args);
  assert.equal(status, 0, stderr);
  const replies = linesOf(stdout);
  assert.ok(replies.length === 4 && replies.some(({ left_out }) => left_out));
  assert.match(
    stderr,
    /chat: expected at most 150 positions, got \d+ with all that was said; answered without the oldest (turn|\d turns)/,
  );
});
