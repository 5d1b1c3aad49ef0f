// --image-size and --behaviour: one image at another size and as LAVIS has it, an index that remembers, a job that asks for it.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { requestFor } from "../../src/cli/job-submit.ts";
import { settingsAsFlags, settingsFrom } from "../../src/cli/model-options.ts";
import { openImageIndex } from "../../src/search/vector-file.ts";
import { fixtures, readJson } from "../fixture-files.ts";
import { images, model, runCli } from "./run-cli.ts";

interface Expected {
  readonly images: readonly {
    readonly folder: string;
    readonly texts: readonly {
      readonly prompt: string;
      readonly token_ids: readonly number[];
      readonly generation: { readonly num_beams: number };
    }[];
  }[];
  readonly texts: readonly {
    readonly folder: string;
    readonly asked: string;
    readonly token_ids: readonly number[];
    readonly generation: { readonly num_beams: number };
  }[];
}

const expected = await readJson<Expected>("settings/expected.json");
const folder = mkdtempSync(join(tmpdir(), "settings-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const vqa = "blip/blip-vqa-tiny";
const greedy = ["--max-new-tokens", "12", "--format", "jsonl"];

test("ask at another size, and as LAVIS has it", async () => {
  const resized = expected.images
    .find((each) => each.folder === vqa)
    ?.texts.find(({ generation }) => generation.num_beams === 1);
  const lavis = expected.texts.find((each) => each.folder === vqa && each.generation.num_beams === 1);
  assert.ok(resized && lavis);
  for (const [question, flags, ids] of [
    [resized.prompt, ["--image-size", "20"], resized.token_ids],
    [lavis.asked, ["--behaviour", "lavis"], lavis.token_ids],
  ] as const) {
    const args = ["ask", join(images, "shapes.png"), question, "--model", join(fixtures, vqa), ...flags, ...greedy];
    const { status, stdout, stderr } = await runCli(args);
    assert.equal(status, 0, stderr);
    const line = JSON.parse(stdout);
    assert.deepEqual([line.question, line.token_ids], [question, ids]);
  }
});

test("sizes and behaviours that cannot be are refused in a sentence", async () => {
  const image = join(images, "shapes.png");
  const refused = async (args: readonly string[], message: RegExp) => {
    const { status, stderr } = await runCli(args);
    assert.equal(status, 2, stderr);
    assert.match(stderr, message);
  };
  const name = model("blip2-opt-tiny");
  await refused(
    ["caption", image, "--model", name, "--image-size", "45"],
    /--image-size: expected a multiple of 14, the side of a patch of .*blip2-opt-tiny, got 45; the nearest are 42 and 56/,
  );
  await refused(["caption", image, "--model", name, "--image-size", "0"], /--image-size: expected .*got "0"/);
  await refused(["caption", image, "--model", name, "--behaviour", "mine"], /huggingface, lavis/);
  const clip = join(fixtures, "clip", "clip-tiny");
  await refused(
    ["classify", image, "cat", "--model", clip, "--behaviour", "lavis"],
    /expected a BLIP or BLIP-2 checkpoint/,
  );
});

test("an index remembers the size, search takes it from there, and another size is refused", async () => {
  const file = join(folder, "resized.index");
  const name = join(fixtures, "retrieval", "blip2-itm-tiny");
  const args = ["index", join(images, "shapes.png"), join(images, "clear.png"), "--out", file, "--model", name];
  const made = await runCli([...args, "--image-size", "49"]);
  assert.equal(made.status, 0, made.stderr);
  const index = await openImageIndex(file);
  assert.deepEqual(index?.model.settings, { imageSize: 49 });
  const found = await runCli(["search", "a red cat", "--index", file, "--format", "jsonl", "--rerank", "1"]);
  assert.equal(found.status, 0, found.stderr);
  assert.equal(found.stdout.trimEnd().split("\n").length, 2);
  const other = await runCli(args);
  assert.equal(other.status, 2, other.stderr);
  assert.match(other.stderr, /expected an index made with .*, got one made with .* with --image-size 49; use/);
});

test("a job asks for workers that run its model so; what the checkpoint says anyway is no setting", async () => {
  const ref = join(fixtures, vqa);
  const requestWith = (settings: object) => requestFor("j", "photos", { ref, dtype: "f32", settings }, { task: "ask" });
  assert.deepEqual((await requestWith({ imageSize: 20 })).model.settings, { imageSize: 20 });
  assert.deepEqual((await requestWith({ behaviour: "lavis" })).model.settings, { behaviour: "lavis" });
  assert.equal((await requestWith({ imageSize: 12, behaviour: "huggingface" })).model.settings, undefined);
  assert.deepEqual(settingsAsFlags({ imageSize: 20, behaviour: "lavis" }), [
    "--image-size",
    "20",
    "--behaviour",
    "lavis",
  ]);
  assert.deepEqual(settingsFrom({ behaviour: "huggingface" }), {});
});
