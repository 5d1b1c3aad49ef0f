// blipfleet classify against what transformers answers, its errors as data, and index and search by CLIP's cosines.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { readTensors } from "../models/parity.ts";
import { clip, clipCases, compareClassified, linesOf } from "./clip-cases.ts";
import { images, model, runCli } from "./run-cli.ts";

const folder = mkdtempSync(join(tmpdir(), "blipfleet-classify-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const image = join(images, "turned.jpg");

test("a line per label, in order, as transformers has it", async () => {
  await compareClassified("clip-tiny", "turned.jpg", "auto", "f32");
  await compareClassified("clip-half", "clear.png", "auto", "f16");
});

test("several templates are one label: the mean of their unit vectors, at length 1", async () => {
  const { pictures, texts, logit_scale } = clipCases("clip-tiny");
  const tensors = await readTensors(join(clip("clip-tiny"), "tensors.safetensors"));
  const row = (key: string, index: number) => {
    const all = tensors.get(key) ?? assert.fail(key);
    const width = all.length / (key.endsWith("images") ? pictures : texts).length;
    return [...all.subarray(index * width, (index + 1) * width)];
  };
  assert.deepEqual([texts[0]?.text, texts[2]?.text], ["a photo of a cat", "Two dogs, and a cat!"]);
  const one = row("f32.texts", 0);
  const mean = row("f32.texts", 2).map((value, i) => (value + (one[i] ?? 0)) / 2);
  const length = Math.hypot(...mean);
  assert.ok(length < 0.95, "the two differ, so that the mean is shorter");
  const seen = row("f32.images", pictures.indexOf("turned.jpg"));
  const wanted = logit_scale * seen.reduce((sum, value, i) => sum + (value * (mean[i] ?? 0)) / length, 0);
  const templates = ["--template", "a photo of a {}", "--template", "Two dogs, and a {}!"];
  const args = ["classify", image, "cat", ...templates, "--model", clip("clip-tiny"), "--format", "jsonl"];
  const { status, stdout, stderr } = await runCli(args);
  assert.equal(status, 0, stderr);
  const [line, ...more] = linesOf(stdout);
  assert.deepEqual([line?.label, line?.probability, more], ["cat", 1, []]);
  assert.ok(Math.abs(Number(line?.logit) - wanted) < 1e-3, `${line?.logit} for ${wanted}`);
});

test("a label that cannot be read fails alone, and people see the likeliest first", async () => {
  const long = "of all ".repeat(30);
  const labels = ["red", "a photo of a cat", long];
  const { status, stdout, stderr } = await runCli(["classify", image, ...labels, "--model", clip("clip-tiny")]);
  assert.equal(status, 1, stderr);
  assert.match(stdout, /^0\.\d{4} {2}logit +\d+\.\d\d {2}(.*)\n0\.\d{4} {2}logit +\d+\.\d\d {2}(.*)\n$/);
  const [red = Number.NaN, cat = Number.NaN] = [3, 0].map((text) => clipCases("clip-tiny").logits_per_image[1]?.[text]);
  assert.ok(red > cat + 1, "or the order shows nothing");
  const shares = stdout.split("\n").map((line) => line.split("  ").at(-1));
  assert.deepEqual(shares, ["red", "a photo of a cat", ""]);
  const sum = stdout.split("\n").reduce((total, line) => total + Number(line.slice(0, 6)), 0);
  assert.ok(Math.abs(sum - 1) < 2e-4, "probabilities of the labels that were read");
  assert.match(stderr, /^\S+: of all of .*: TextError: text: expected at most \d+ tokens, .*, got \d+; shorten/m);
});

test("an image that cannot be read fails each label", async () => {
  const args = [
    "classify",
    join(images, "absent.png"),
    "red",
    "blue",
    "--model",
    clip("clip-tiny"),
    "--format",
    "jsonl",
  ];
  const { status, stdout } = await runCli(args);
  assert.equal(status, 1);
  const lines = linesOf(stdout);
  assert.deepEqual(
    lines.map((line) => [Object.keys(line), line.label]),
    ["red", "blue"].map((label) => [["image", "label", "error"], label]),
  );
  for (const line of lines) assert.match(JSON.stringify(line.error), /absent\.png: .* got no such file/);
});

test("without --model, and with no demo model that classifies: one sentence, status 2", async () => {
  const { status, stdout, stderr } = await runCli(["classify", image, "red"]);
  assert.deepEqual([status, stdout], [2, ""]);
  assert.match(
    stderr,
    /^blipfleet: --model: expected .* CLIPModel checkpoint, got none, .*; name one, as --model openai\/clip-vit-base-patch32\n$/,
  );
});

test("each kind of model is refused where another is wanted, with the commands that fit", async () => {
  const captioned = await runCli(["caption", image, "--model", clip("clip-tiny")]);
  assert.equal(captioned.status, 2, captioned.stderr);
  assert.match(
    captioned.stderr,
    /^blipfleet: .* got CLIPModel, which compares images with labels and other texts; use it with classify, index, search and job submit --task classify or index$/m,
  );
  const { status, stderr } = await runCli(["classify", image, "red", "--model", model("blip2-opt-tiny")]);
  assert.equal(status, 2, stderr);
  const found =
    "got Blip2ForConditionalGeneration, which writes texts; use it with caption, ask, chat, capfilt and job submit";
  assert.match(stderr, new RegExp(`^blipfleet: .*expected a model that classifies images by labels, ${found}$`, "m"));
});

test("index and search: by the cosines that classify multiplies, and none is matched again", async () => {
  const { pictures, texts, logits_per_image, logit_scale } = clipCases("clip-tiny");
  const file = join(folder, "pictures.index");
  const paths = pictures.map((picture) => join(images, picture));
  const made = await runCli(["index", ...paths, "--out", file, "--model", clip("clip-tiny")]);
  assert.equal(made.status, 0, made.stderr);
  const { status, stdout, stderr } = await runCli([
    "search",
    texts[0]?.text ?? "",
    "--index",
    file,
    "--format",
    "jsonl",
  ]);
  assert.equal(status, 0, stderr);
  const wanted = paths
    .map((path, i) => ({ path, itc: (logits_per_image[i]?.[0] ?? Number.NaN) / logit_scale }))
    .sort((a, b) => b.itc - a.itc);
  const lines = linesOf(stdout);
  assert.deepEqual(
    lines.map((line) => [line.rank, line.image, line.itm]),
    wanted.map(({ path }, i) => [i + 1, path, null]),
  );
  for (const [i, { itc }] of wanted.entries()) assert.ok(Math.abs(Number(lines[i]?.itc) - itc) < 2e-5);
  const matched = await runCli(["search", "red", "--index", file, "--rerank", "3"]);
  assert.equal(matched.status, 2);
  assert.match(matched.stderr, /--rerank: expected 0 with .*clip-tiny, which has no matching head, got 3/);
});
