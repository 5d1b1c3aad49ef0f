// scripts/convert-lavis.py, run on state dicts that test/fixtures/make-lavis.py writes: what was renamed comes back as it was.
// Needs a Python with torch, transformers and safetensors: BLIPFLEET_PYTHON, else python3. Where there is none, these tests say
// so on stderr and check nothing.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { checkModel } from "../../src/models/model-card.ts";
import { openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { readValues } from "../../src/weights/safetensors.ts";
import { fixtures } from "../fixture-files.ts";

const python = process.env.BLIPFLEET_PYTHON ?? "python3";
const environment = { ...process.env, OMP_NUM_THREADS: "1" };
const run = (args: readonly string[]) => spawnSync(python, args, { encoding: "utf8", env: environment });
const canRun = run(["-c", "import torch, transformers, safetensors"]).status === 0;
if (!canRun) {
  process.stderr.write(
    `NOT RUN: ${python} has no torch, transformers and safetensors; name one that has them in BLIPFLEET_PYTHON\n`,
  );
}
const folder = mkdtempSync(path.join(tmpdir(), "convert-lavis-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const pth = path.join(folder, "pth");
const converter = path.join(packageRoot, "scripts", "convert-lavis.py");
if (canRun) {
  const made = run([path.join(fixtures, "make-lavis.py"), "--pth", pth]);
  assert.equal(made.status, 0, made.stderr);
}

function convert(file: string, to: string, more: readonly string[]) {
  return run([converter, "--from", path.join(pth, file), "--to", path.join(folder, to), ...more]);
}

/** What the tensors do not tell, as the fixture has it. */
function settings(values: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(values).flatMap(([key, value]) => ["--set", `${key}=${JSON.stringify(value)}`]);
}

/** The named settings of a fixture's config.json. */
async function toldBy(source: string, keys: readonly string[]): Promise<string[]> {
  const config = (await readSettings(await openCheckpoint(path.join(fixtures, source)), "config.json")) ?? {};
  const at = (key: string) =>
    key.split(".").reduce<unknown>((part, name) => (part as Record<string, unknown> | null)?.[name], config);
  return settings(Object.fromEntries(keys.map((key) => [key, at(key)])));
}

const heads = (...parts: readonly string[]) => parts.map((part) => `${part}.num_attention_heads`);
const ids = ["text_config.bos_token_id", "text_config.sep_token_id"];
const round = [
  ["blip-caption.pth", "blip/blip-caption-tiny", "captions", [...heads("vision_config", "text_config"), ...ids], []],
  ["blip-vqa.pth", "blip/blip-vqa-tiny", "answers", [...heads("vision_config", "text_config"), ...ids], []],
  ["blip-itm.pth", "blip/blip-itm-tiny", "matches", [...heads("vision_config", "text_config"), ...ids], []],
  ["blip2-itm.pth", "retrieval/blip2-itm-tiny", "matches", heads("vision_config", "qformer_config"), []],
  [
    "blip2-opt.pth",
    "models/blip2-opt-tiny",
    "texts",
    [...heads("vision_config", "qformer_config"), "image_token_index", "text_config.eos_token_id"],
    ["--vit", path.join(pth, "eva_vit_g.pth"), "--language-model", path.join(pth, "opt"), "--shard-bytes", "200000"],
  ],
] as const;

for (const [file, source, purpose, keys, more] of round) {
  test(`${file}: every tensor of ${source} comes back, and the checkpoint opens`, async () => {
    if (!canRun) return;
    const to = path.basename(source);
    const told = await toldBy(source, keys);
    const done = convert(file, to, ["--tokenizer", path.join(fixtures, source), ...told, ...more]);
    assert.equal(done.status, 0, done.stderr);
    const [back, original] = [
      await openCheckpoint(path.join(folder, to)),
      await openCheckpoint(path.join(fixtures, source)),
    ];
    const copies = /cls\.predictions\.decoder\.(weight|bias)$/;
    const wanted = [...original.tensors.keys()].filter((name) => !copies.test(name));
    assert.deepEqual([...back.tensors.keys()].sort(), wanted.sort());
    for (const name of wanted) {
      const [ours, theirs] = [back.tensors.get(name), original.tensors.get(name)];
      assert.ok(ours && theirs);
      assert.deepEqual([ours.shape, ours.dtype], [theirs.shape, theirs.dtype], name);
      const values = await readValues(theirs);
      // LAVIS has no biases of keys.
      if (name.endsWith("self_attn.qkv.bias") && file.startsWith("blip2")) {
        values.fill(0, values.length / 3, (2 * values.length) / 3);
      }
      assert.deepEqual(await readValues(ours), values, name);
    }
    const { card } = await checkModel(back, "f32", { purpose });
    const { card: known } = await checkModel(original, "f32", { purpose });
    assert.deepEqual({ ...card, ref: "", digest: "" }, { ...known, ref: "", digest: "" });
    if (file === "blip2-opt.pth") assert.ok(back.weightFiles.length > 2, "sharded");
  });
}

test("blip2_pretrained_vitL.pth: the committed checkpoint, byte for byte", async () => {
  if (!canRun) return;
  const tokenizer = ["--tokenizer", path.join(fixtures, "retrieval", "blip2-itm-tiny")];
  const vit = ["--vit", path.join(pth, "clip_vit_L.pth"), "--vit-blocks", "2", "--dtype", "f16"];
  const told = settings({ "vision_config.num_attention_heads": 2, "qformer_config.num_attention_heads": 3 });
  const done = convert("blip2_pretrained_vitL.pth", "vit-l", [...tokenizer, ...vit, ...told]);
  assert.equal(done.status, 0, done.stderr);
  const digestOf = async (of: string) =>
    (await checkModel(await openCheckpoint(of), "f32", { purpose: "matches" })).card.digest;
  assert.equal(
    await digestOf(path.join(folder, "vit-l")),
    await digestOf(path.join(fixtures, "retrieval", "blip2-itm-vit-l")),
  );
});

test("without torch: help, and otherwise a sentence with exit status 2", () => {
  if (!canRun) return;
  const absent = path.join(folder, "absent");
  mkdirSync(absent);
  writeFileSync(path.join(absent, "torch.py"), "raise ModuleNotFoundError(\"No module named 'torch'\")\n");
  const env = { ...environment, PYTHONPATH: absent };
  const converted = (...args: string[]) => spawnSync(python, [converter, ...args], { encoding: "utf8", env });
  const help = converted("--help");
  assert.deepEqual([help.status, help.stderr], [0, ""]);
  assert.match(help.stdout, /--language-model DIR/);
  const { status, stderr } = converted("--from", "x.pth", "--to", path.join(folder, "never"));
  assert.equal(status, 2, stderr);
  assert.match(stderr, /^convert-lavis: expected torch and safetensors, got .*; install them by pip install -r .*\n$/);
});

test("what cannot be converted is refused in a sentence with exit status 2", () => {
  if (!canRun) return;
  const tokenizer = ["--tokenizer", path.join(fixtures, "blip", "blip-caption-tiny")];
  const plain = path.join(folder, "plain.pth");
  writeFileSync(plain, "no zip");
  const refused = (file: string, more: readonly string[], message: RegExp) => {
    const { status, stderr } = convert(file, "never", more);
    assert.equal(status, 2, stderr);
    assert.match(stderr, message);
    assert.ok(!stderr.includes("Traceback"), stderr);
  };
  refused("nowhere.pth", tokenizer, /expected a file, got none/);
  refused("../plain.pth", tokenizer, /expected a file of torch.save since PyTorch 1.6, which is a zip/);
  refused("legacy.pth", tokenizer, /which is a zip, got another kind/);
  refused("more-than-tensors.pth", tokenizer, /expected tensors in plain containers/);
  refused("unknown.pth", tokenizer, /expected the keys of one of blip-caption, .*got a, \.\.\.; --model says/);
  refused("left-over.pth", tokenizer, /expected no other keys, got 1 .*:\n {2}something\.else/);
  refused(
    "blip2-opt.pth",
    tokenizer,
    /blip2-opt: expected \d+ more keys; LAVIS leaves a frozen ViT out of its files: give it by --vit:\n {2}visual_encoder\./,
  );
  const vit = ["--vit", path.join(pth, "eva_vit_g.pth")];
  refused("blip2-opt.pth", [...tokenizer, ...vit], /expected --language-model DIR/);
  refused("blip-caption.pth", [], /--tokenizer: expected a directory with tokenizer.json/);
  refused(
    "blip-caption.pth",
    ["--tokenizer", path.join(fixtures, "retrieval", "blip2-itm-tiny")],
    /expected one with \[DEC\] and \[ENC\]/,
  );
  refused("blip-caption.pth", tokenizer, /vision_config.num_attention_heads: expected it by --set/);
  refused(
    "blip-caption.pth",
    [...tokenizer, "--model", "blip-vqa"],
    /blip-vqa: expected \d+ more keys:\n {2}text_encoder\./,
  );
});
