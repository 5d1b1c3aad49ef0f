import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { expectTensors, openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { CheckpointError, ConfigError, WeightsError } from "../../src/weights/errors.ts";
import type { NameTable } from "../../src/weights/names/tensor-names.ts";
import { fixtures } from "../fixture-files.ts";
import { safetensors, temporaryFolder, writeFolder } from "./checkpoint-files.ts";

const folder = await temporaryFolder();
const names: NameTable = {
  required: [
    { name: "a", shape: [2, 3] },
    { name: "b", shape: [4] },
    { name: "c", shape: [1] },
  ],
  tied: [{ name: "d", shape: [2, 3] }],
};
const a = { shape: [2, 3] };
const b = { shape: [4], dtype: "F16" };
const c = { shape: [1], dtype: "BF16" };

/** What is wrong with a folder of these files, one line each. */
async function problemsOf(name: string, files: Record<string, Buffer | string>): Promise<readonly string[]> {
  const checkpoint = await openCheckpoint(await writeFolder(folder, name, { "config.json": "{}", ...files }));
  try {
    expectTensors(checkpoint, names);
  } catch (error) {
    assert.ok(error instanceof WeightsError, String(error));
    for (const problem of error.problems) assert.ok(error.message.includes(problem), "the message shows every problem");
    return error.problems;
  }
  return [];
}

function index(places: Record<string, string>): string {
  return JSON.stringify({ metadata: { total_size: 1 }, weight_map: places });
}

const one = "model-00001-of-00002.safetensors";
const two = "model-00002-of-00002.safetensors";

test("a single file with mixed dtypes, with or without tied and ignored tensors", async () => {
  assert.deepEqual(await problemsOf("plain", { "model.safetensors": safetensors({ a, b, c }) }), []);
  const more = safetensors({ a, b, c, d: a, "x.position_ids": { shape: [1, 9], dtype: "I64" } });
  assert.deepEqual(await problemsOf("more", { "model.safetensors": more }), []);
});

test("everything wrong with names, shapes and dtypes comes as one list", async () => {
  const content = safetensors({
    a: { shape: [3, 2] },
    c: { shape: [1], dtype: "I64" },
    d: { shape: [6] },
    stray: { shape: [1] },
  });
  assert.deepEqual(await problemsOf("wrong", { "model.safetensors": content }), [
    "a: expected (2, 3), got (3, 2)",
    "b: expected (4), got no such tensor",
    "c: expected F32, F16, BF16, got I64",
    "d: expected (2, 3), got (6)",
    "stray: expected no tensor of this name",
  ]);
});

test("shards by an index", async () => {
  const places = { a: one, b: two, c: two };
  const files = { [one]: safetensors({ a }), [two]: safetensors({ b, c }) };
  assert.deepEqual(await problemsOf("shards", { ...files, "model.safetensors.index.json": index(places) }), []);
});

test("a missing shard, a damaged one, misplaced and stray tensors come as one list", async () => {
  const three = "model-00003-of-00003.safetensors";
  const problems = await problemsOf("broken", {
    [one]: safetensors({ a, stray: { shape: [1] }, b }),
    [three]: safetensors({ c }).subarray(0, 20),
    "model.safetensors.index.json": index({ a: one, lost: one, b: two, c: three, d: "../d.safetensors" }),
  });
  assert.deepEqual(
    problems.map((line) => line.replace(/got .*in JSON.*|got a header of.*/, "…")),
    [
      'model.safetensors.index.json: expected names of safetensors files beside it, got "../d.safetensors"',
      `${one}: stray: expected in no shard by model.safetensors.index.json, got it here`,
      `${one}: b: expected in ${two} by model.safetensors.index.json, got it here`,
      `${one}: expected lost by model.safetensors.index.json, got none`,
      `${two}: expected it beside model.safetensors.index.json, got no such file (1 tensors)`,
      `${three}: expected a header inside the file's 20 bytes, …`,
    ],
  );
});

test("an index that is no index", async () => {
  const file = (content: string) =>
    writeFolder(folder, "index", { "config.json": "{}", "model.safetensors.index.json": content });
  await assert.rejects(openCheckpoint(await file("{}")), WeightsError);
  await assert.rejects(openCheckpoint(await file('{"weight_map":{"a":1}}')), WeightsError);
  await assert.rejects(openCheckpoint(await file("{")), ConfigError);
});

test("a long list of problems is cut in the message, not in the error", () => {
  const problems = Array.from({ length: 100 }, (_, i) => `tensor ${i}`);
  const error = new WeightsError("model", problems);
  assert.equal(error.problems.length, 100);
  assert.match(error.message, /got 100 problems:\n {2}tensor 0\n[\s\S]*tensor 39\n {2}and 60 more$/);
});

test("folders without a model, and other weights, are refused with the next step", async () => {
  await assert.rejects(openCheckpoint(await writeFolder(folder, "nothing", {})), (error: Error) => {
    return error instanceof CheckpointError && /without config\.json/.test(error.message);
  });
  const old = await writeFolder(folder, "old", { "config.json": "{}", "pytorch_model.bin": "" });
  await assert.rejects(openCheckpoint(old), /got pytorch_model\.bin; save the model with safe_serialization=True/);
});

test("settings: absent, malformed, present", async () => {
  const files = {
    "config.json": '{"x":1}',
    "list.json": "[]",
    "bad.json": "{",
    "model.safetensors": safetensors({ a }),
  };
  const checkpoint = await openCheckpoint(await writeFolder(folder, "settings", files));
  assert.deepEqual(await readSettings(checkpoint, "config.json"), { x: 1 });
  assert.equal(await readSettings(checkpoint, "absent.json"), null);
  await assert.rejects(readSettings(checkpoint, "bad.json"), ConfigError);
  await assert.rejects(readSettings(checkpoint, "list.json"), ConfigError);
});

test("a sharded fixture opens with every tensor that its index names", async () => {
  const model = path.join(fixtures, "models", "blip2-opt-sharded");
  const checkpoint = await openCheckpoint(model);
  const listed = JSON.parse(await readFile(path.join(model, "model.safetensors.index.json"), "utf8"));
  assert.deepEqual(checkpoint.problems, []);
  assert.deepEqual([...checkpoint.tensors.keys()].sort(), Object.keys(listed.weight_map).sort());
  assert.equal(checkpoint.weightFiles.length, 6);
});
