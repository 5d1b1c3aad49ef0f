// caption and ask with --frames: animations and folders, what is taken of them, and what is refused.

import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { framesTaken, naturalOrder, readVideo } from "../../src/cli/frames-option.ts";
import { fixtures, readJson } from "../fixture-files.ts";
import { images, model, runCli } from "./run-cli.ts";

interface Case {
  readonly source: string;
  readonly frames: number;
  readonly kind: "caption" | "ask";
  readonly words: string;
  readonly token_ids: readonly number[];
  readonly text: string;
}

const { pictures, models } = await readJson<{ pictures: string[]; models: Record<string, readonly Case[]> }>(
  "video.json",
);
const folder = mkdtempSync(join(tmpdir(), "blipfleet-video-"));
after(() => rmSync(folder, { recursive: true }));
const animation = join(fixtures, "animations", "keep-clear.gif");
const frames = join(folder, "frames");
mkdirSync(frames);
for (const [i, name] of pictures.entries()) cpSync(join(images, name), join(frames, `frame-${8 + i}.${name}`));
writeFileSync(join(frames, "notes.txt"), "no frame");
const opt = ["--model", model("blip2-opt-tiny"), "--dtype", "f32", "--format", "jsonl", "--max-new-tokens", "8"];

test("which frames are taken, and in which order", () => {
  assert.deepEqual(framesTaken(10, 4), [0, 2, 5, 7]);
  assert.deepEqual(framesTaken(3, 8), [0, 1, 2]);
  assert.deepEqual(framesTaken(7, 1), [0]);
  assert.deepEqual(framesTaken(5, 3), [0, 1, 3]);
  assert.deepEqual(naturalOrder(["f10.png", "f9.png", "f1.png"]), ["f1.png", "f9.png", "f10.png"]);
  assert.deepEqual(naturalOrder(["10.png", "9.png", "9b.png"]), ["9.png", "9b.png", "10.png"]);
});

test("a folder and an animation, captioned together as transformers does it", async () => {
  const wanted = (source: string) =>
    models["blip2-opt-tiny"]?.find((each) => each.source === source && each.frames === 3 && each.kind === "caption");
  const args = ["caption", frames, animation, "--prompt", "a photo of", "--frames", "3", ...opt];
  const { status, stdout, stderr } = await runCli(args);
  assert.equal(status, 0, stderr);
  const lines = [wanted("folder"), wanted("keep-clear.gif")].map((each, i) => {
    const { text, token_ids } = each ?? assert.fail();
    return JSON.stringify({ image: [frames, animation][i], text, token_ids });
  });
  assert.deepEqual(stdout.trimEnd().split("\n"), lines);
});

test("without --frames an animation is its first frame, and one frame is the same", async () => {
  const [plain, one] = await Promise.all([
    runCli(["caption", animation, ...opt]),
    runCli(["caption", animation, "--frames", "1", ...opt]),
  ]);
  assert.equal(plain.status, 0, plain.stderr);
  assert.equal(one.stdout, plain.stdout);
});

test("bad videos are lines with one sentence; wrong use ends at once", async () => {
  const empty = join(folder, "empty");
  mkdirSync(empty);
  const damaged = join(folder, "damaged.webp");
  const whole = readFileSync(join(fixtures, "decode", "animated.webp"));
  writeFileSync(damaged, Buffer.from(whole).fill(0xa5, whole.length - 60));
  const many = join(folder, "many");
  mkdirSync(many);
  for (let i = 0; i < 16; i++) cpSync(join(images, "shapes.png"), join(many, `${i}.png`));
  const { status, stdout } = await runCli([
    "caption",
    empty,
    damaged,
    many,
    join(folder, "none"),
    "--frames",
    "16",
    ...opt,
  ]);
  assert.equal(status, 1);
  const messages = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).error);
  const expected: [string, RegExp][] = [
    ["ImageError", /empty: expected a folder with frames .*, got none$/],
    ["ImageError", /^image: expected a whole webp file, got one whose frame 1 does not decode/],
    ["GenerationError", /expected at most 64 positions of image slots, text and new ids, got 89 \(80 \+ 1 \+ 8\)/],
    ["ImageError", /none: expected a readable image file, got no such file$/],
  ];
  for (const [i, [type, message]] of expected.entries()) {
    assert.equal(messages[i].type, type);
    assert.match(messages[i].message, message);
  }
  const refused: [string[], RegExp][] = [
    [["caption", frames, "--frames", "0", ...opt], /--frames: expected a whole number from 1 to 128, got "0"/],
    [
      ["caption", frames, "--frames", "2", "--attention", folder, ...opt],
      /--frames: expected no --attention beside it/,
    ],
    [
      ["caption", frames, "--frames", "2", "--model", model("blip-caption-tiny")],
      /--frames: expected a BLIP-2 or InstructBLIP that writes/,
    ],
  ];
  for (const [args, message] of refused) {
    const { status, stderr } = await runCli(args);
    assert.equal(status, 2, stderr);
    assert.match(stderr, message);
  }
});

test("a video's digest is that of its file or of its frames", async () => {
  const digests = await Promise.all([readVideo(frames, 4), readVideo(frames, 3), readVideo(animation, 2)]);
  assert.equal(new Set(digests.map(({ digest }) => digest)).size, 3);
  assert.deepEqual(
    digests[2]?.frames.map(({ frame }) => frame),
    [0, 2],
  );
});
