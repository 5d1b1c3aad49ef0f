// caption and ask with --attention: the numbers of transformers, the picture brightest where the largest weight is, names
// that do not collide, and what is refused.

import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import sharp from "sharp";
import { openTokenizer } from "../../src/text/tokenizer.ts";
import { readJson } from "../fixture-files.ts";
import { images, model, runCli } from "./run-cli.ts";

interface Numbers {
  readonly image: string;
  readonly instruction?: string;
  readonly lookers: string;
  readonly grid: readonly [number, number];
  readonly token_ids?: readonly number[];
  readonly class: readonly number[];
  readonly weights: readonly (readonly number[])[];
}

type Case = { readonly image: string; readonly instruction?: string; readonly weights: readonly (readonly number[])[] };

const folder = mkdtempSync(join(tmpdir(), "blipfleet-attention-"));
after(() => rmSync(folder, { recursive: true }));
const { models } = await readJson<{ models: Record<string, readonly Case[]> }>("attention.json");

function numbersOf(file: string): Numbers {
  return JSON.parse(readFileSync(file, "utf8"));
}

/** Of each patch how yellow its middle is, where blue is little and red is much. */
async function yellow(file: string, [rows, columns]: readonly [number, number]): Promise<number[]> {
  const { data, info } = await sharp(file).raw().toBuffer({ resolveWithObject: true });
  return Array.from({ length: rows * columns }, (_, patch) => {
    const x = Math.floor((((patch % columns) + 0.5) * info.width) / columns);
    const y = Math.floor(((Math.floor(patch / columns) + 0.5) * info.height) / rows);
    const [red = 0, , blue = 0] = data.subarray(3 * (y * info.width + x));
    return red - blue;
  });
}

test("captions: transformers' weights; a wide picture and one that EXIF turns; two images of one name", async () => {
  const out = join(folder, "new", "looks");
  mkdirSync(join(folder, "other"));
  cpSync(join(images, "shapes.png"), join(folder, "other", "wide-stripes.png"));
  const paths = ["shapes.png", "wide-stripes.png", "turned.jpg"].map((name) => join(images, name));
  paths.push(join(folder, "other", "wide-stripes.png"));
  const flags = ["--model", model("blip2-opt-tiny"), "--dtype", "f32", "--format", "jsonl", "--max-new-tokens", "3"];
  const { status, stdout, stderr } = await runCli(["caption", ...paths, ...flags, "--attention", out]);
  assert.equal(status, 0, stderr);
  const lines: { image: string; attention: string }[] = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  const names = ["shapes.png", "wide-stripes.png", "turned.jpg", "wide-stripes.png.2"];
  assert.deepEqual(
    lines.map(({ attention }) => attention),
    names.map((name) => join(out, `${name}.attention.json`)),
  );
  assert.equal(readdirSync(out).length, 3 * names.length);
  const expected = [...(models["blip2-opt-tiny"] ?? [])];
  expected.push(expected[0] ?? assert.fail());
  for (const [i, { weights }] of expected.entries()) {
    const numbers = numbersOf(lines[i]?.attention ?? "");
    assert.equal(numbers.image, paths[i]);
    assert.deepEqual([numbers.lookers, numbers.grid, numbers.token_ids], ["queries", [3, 3], undefined]);
    const got = numbers.weights.flatMap((row, query) => [numbers.class[query] ?? Number.NaN, ...row]);
    for (const [at, weight] of weights.flat().entries()) {
      assert.ok(Math.abs((got[at] ?? Number.NaN) - weight) <= 1e-5, `${names[i]}: ${got[at]} for ${weight}`);
    }
    const means = weights[0]?.slice(1).map((_, patch) => weights.reduce((sum, row) => sum + (row[patch + 1] ?? 0), 0));
    const picture = join(out, `${names[i]}.attention.png`);
    const shades = await yellow(picture, numbers.grid);
    assert.equal(shades.indexOf(Math.max(...shades)), means?.indexOf(Math.max(...means)), names[i]);
    const { width = 0, height = 0 } = await sharp(picture).metadata();
    const { autoOrient } = await sharp(paths[i]).metadata();
    assert.ok(Math.abs(width / height - autoOrient.width / autoOrient.height) < 0.01 * (width / height), names[i]);
  }
  // Without it the captions are the same.
  const plain = await runCli(["caption", ...paths, ...flags]);
  const without = lines.map(({ attention: _, ...line }) => `${JSON.stringify(line)}\n`).join("");
  assert.equal(plain.stdout, without);
});

test("BLIP's captioner looks at each new id; answers about one image share its maps", async () => {
  const image = join(images, "wide-stripes.png");
  const flags = ["--dtype", "f32", "--format", "jsonl", "--max-new-tokens", "6", "--attention", join(folder, "ids")];
  const caption = await runCli([
    "caption",
    image,
    "--prompt",
    "a photo of",
    "--model",
    model("blip-caption-tiny"),
    ...flags,
  ]);
  assert.equal(caption.status, 0, caption.stderr);
  const { token_ids, attention } = JSON.parse(caption.stdout);
  const numbers = numbersOf(attention);
  assert.deepEqual([numbers.lookers, numbers.token_ids], ["ids", token_ids]);
  assert.equal(numbers.weights.length, token_ids.length);
  // The first id was chosen at the prompt's last one, as in the fixture's text, which begins alike.
  const [, wide] = models["blip-caption-tiny"] ?? [];
  const before = (await openTokenizer(model("blip-caption-tiny"))).tokenize("a photo of").length;
  const expected = wide?.weights[before - 1] ?? [];
  for (const [at, weight] of expected.slice(1).entries()) {
    assert.ok(
      Math.abs((numbers.weights[0]?.[at] ?? Number.NaN) - weight) <= 1e-5,
      `${numbers.weights[0]} for ${expected}`,
    );
  }
  const asked = ["ask", image, "what?", "why?", "--model", model("blip2-opt-tiny"), ...flags];
  const { stdout, stderr } = await runCli(asked);
  const files = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).attention);
  assert.deepEqual(files, new Array(2).fill(join(folder, "ids", "wide-stripes.png.attention.json")), stderr);
});

test("InstructBLIP's queries look by the instruction: maps for each question, and of none those of the empty text", async () => {
  const image = join(images, "shapes.png");
  const name = "instructblip-vicuna-tiny";
  const out = join(folder, "instructed");
  const cases = models[name] ?? [];
  const questions = cases.flatMap(({ instruction }) => (instruction ? [instruction] : []));
  assert.equal(questions.length, 2);
  const flags = ["--model", model(name), "--dtype", "f32", "--format", "jsonl", "--max-new-tokens", "3"];
  const asked = ["ask", image, ...questions, ...flags];
  const streams = join(folder, "streamed");
  const [ask, plain, streamed, caption] = await Promise.all([
    runCli([...asked, "--attention", out]),
    runCli(asked),
    runCli(["ask", image, "why?", ...questions.slice(1), ...flags.toSpliced(4, 2), "--stream", "--attention", streams]),
    runCli(["caption", image, ...flags, "--attention", join(folder, "captioned")]),
  ]);
  const said = [ask, caption].flatMap(({ stdout, stderr, status }) => {
    assert.equal(status, 0, stderr);
    return stdout
      .trimEnd()
      .split("\n")
      .map((line): string => JSON.parse(line).attention);
  });
  assert.equal(streamed.status, 0, streamed.stderr);
  const [first, second] = ["shapes.png.attention.json", "shapes.png.attention.2.json"];
  assert.deepEqual(said, [join(out, first), join(out, second), join(folder, "captioned", first)]);
  assert.equal(readdirSync(out).length, 6);
  const files = [...said, join(streams, first), join(streams, second)];
  for (const [i, file] of files.entries()) {
    const read = numbersOf(file);
    const expected = cases.find(({ instruction }) => instruction === read.instruction);
    assert.equal(read.instruction, [...questions, "", "why?", questions[1]][i]);
    assert.deepEqual([read.lookers, read.grid, read.token_ids], ["queries", [2, 2], undefined]);
    const got = read.weights.flatMap((row, query) => [read.class[query] ?? Number.NaN, ...row]);
    for (const [at, weight] of (expected?.weights.flat() ?? []).entries()) {
      assert.ok(Math.abs((got[at] ?? Number.NaN) - weight) <= 1e-5, `${file}: ${got[at]} for ${weight}`);
    }
  }
  const without = ask.stdout.replaceAll(/,"attention":"[^"]*"/g, "");
  assert.equal(plain.stdout, without);
});

test("a folder that cannot be one, and a model without maps, are refused with one sentence", async () => {
  const file = join(folder, "file");
  writeFileSync(file, "");
  const image = join(images, "shapes.png");
  const opt = ["--model", model("blip2-opt-tiny")];
  const refused: [string[], RegExp][] = [
    [["caption", image, ...opt, "--attention", file], /^blipfleet: .*--attention: expected a folder .*, got a file: /],
    [["ask", image, "what?", ...opt, "--attention", join(file, "below")], /--attention: .* got a file: /],
    [
      ["caption", image, ...opt, "--attention", "/proc/looks"],
      /--attention: expected a folder that can be written, got E/,
    ],
    [
      ["ask", image, "what?", "--model", model("blip-vqa-tiny"), "--attention", join(folder, "none")],
      /--attention: expected a model whose Q-Former, .* got .*blip-vqa-tiny, BlipForQuestionAnswering; leave it out/,
    ],
  ];
  for (const [args, message] of refused) {
    const { status, stdout, stderr } = await runCli(args);
    assert.deepEqual([status, stdout], [2, ""], stderr);
    const said = stderr.split("\n").filter((line) => line.startsWith("blipfleet: "));
    assert.equal(said.length, 1, stderr);
    assert.match(said[0] ?? "", message);
  }
  assert.ok(!existsSync("/proc/looks"));
});
