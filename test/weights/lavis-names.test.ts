// scripts/lavis-names.json, the converter's table, against the names that a checkpoint of each kind must have here.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { packageRoot } from "../../src/gpu/package-root.ts";
import { blip2Config, blip2RetrievalConfig, blip2T5Config } from "../../src/models/blip-2-config.ts";
import { blipConfig } from "../../src/models/blip-config.ts";
import { families } from "../../src/models/families.ts";
import { blipCaptionNames, blipRetrievalNames, blipVqaNames } from "../../src/weights/names/blip.ts";
import { blip2OptNames } from "../../src/weights/names/blip-2-opt.ts";
import { blip2RetrievalNames } from "../../src/weights/names/blip-2-retrieval.ts";
import { blip2T5Names } from "../../src/weights/names/blip-2-t5.ts";
import type { NamedTensor } from "../../src/weights/names/tensor-names.ts";

type Row = readonly [string | readonly string[], string] | readonly [string | readonly string[], string, string];

interface Names {
  readonly models: Readonly<Record<string, { readonly class: string; readonly parts: readonly string[] }>>;
  readonly unused: readonly (readonly [string, string])[];
  readonly parts: Readonly<Record<string, readonly Row[]>>;
}

const names: Names = JSON.parse(readFileSync(path.join(packageRoot, "scripts", "lavis-names.json"), "utf8"));
const rowsOf = (part: string) => names.parts[part] ?? assert.fail(part);

/** The names of a part's tensors, with so many blocks and layers. */
function namesOf(
  part: string,
  counts: { readonly block: number; readonly layer: number; readonly cross: readonly number[] },
): string[] {
  return rowsOf(part).flatMap(([, name]) => {
    const place = /\{(block|layer|cross)\}/.exec(name)?.[1];
    if (place === undefined) return [name];
    const numbers =
      place === "cross"
        ? counts.cross
        : Array.from({ length: place === "block" ? counts.block : counts.layer }, (_, i) => i);
    return numbers.map((i) => name.replace(`{${place}}`, String(i)));
  });
}

const vitL = { model_type: "clip_vision_model", num_hidden_layers: 23, hidden_act: "quick_gelu" };
const t5 = { model_type: "t5", decoder_start_token_id: 0, feed_forward_proj: "gated-gelu", dense_act_fn: "gelu" };
const reads = { use_qformer_text_input: true };
const required = (of: { readonly required: readonly NamedTensor[] }) => of.required.map(({ name }) => name);
const kinds: readonly (readonly [string, string, readonly string[], number])[] = [
  ["blip-caption", "", required(blipCaptionNames(blipConfig("m", {}))), 12],
  ["blip-vqa", "", required(blipVqaNames(blipConfig("m", {}))), 12],
  ["blip-itm", "", required(blipRetrievalNames(blipConfig("m", {}))), 12],
  ["blip2-itm", "vit-g", required(blip2RetrievalNames(blip2RetrievalConfig("m", { qformer_config: reads }))), 39],
  [
    "blip2-itm",
    "vit-l",
    required(blip2RetrievalNames(blip2RetrievalConfig("m", { qformer_config: reads, vision_config: vitL }))),
    23,
  ],
  ["blip2-opt", "vit-g", required(blip2OptNames(blip2Config("m", { image_token_index: 1 }))), 39],
  ["blip2-opt", "vit-l", required(blip2OptNames(blip2Config("m", { image_token_index: 1, vision_config: vitL }))), 23],
  ["blip2-t5", "vit-g", required(blip2T5Names(blip2T5Config("m", { image_token_index: 1, text_config: t5 }))), 39],
  [
    "blip2-t5",
    "vit-l",
    required(blip2T5Names(blip2T5Config("m", { image_token_index: 1, text_config: t5, vision_config: vitL }))),
    23,
  ],
];

for (const [model, vit, wanted, block] of kinds) {
  test(`${model} ${vit}: the table makes every tensor that is needed, once, and no other`, () => {
    const { class: architecture, parts } = names.models[model] ?? assert.fail(model);
    assert.ok(
      Object.values(families).some((family) => family.architecture === architecture),
      architecture,
    );
    const counts = { block, layer: 12, cross: [0, 2, 4, 6, 8, 10] };
    const made = parts.flatMap((part) => namesOf(part === "vit" ? vit : part, counts));
    assert.deepEqual(made.sort(), wanted.filter((name) => !name.startsWith("language_model.")).sort());
  });
}

test("a key is used once, or once for each third; what is more than a copy is one of four", () => {
  const kindsOfRow = new Set<string | undefined>();
  for (const [part, rows] of Object.entries(names.parts)) {
    const uses = new Map<string, string[]>();
    for (const [source, , how] of rows) {
      kindsOfRow.add(how);
      assert.equal(typeof source === "string", how !== "first, zeros, second", part);
      for (const key of typeof source === "string" ? [source] : source)
        uses.set(key, [...(uses.get(key) ?? []), how ?? "copy"]);
    }
    for (const [key, how] of uses) {
      assert.ok(
        how.length === 1 || String(how) === "rows: first third,rows: second third,rows: last third",
        `${part}: ${key}: ${how}`,
      );
    }
  }
  const known = [undefined, "first, zeros, second", "rows: first third", "rows: second third", "rows: last third"];
  assert.deepEqual([...kindsOfRow].sort(), known.sort());
});

test("queries, keys and values keep their places", () => {
  const row = (part: string, name: string) => rowsOf(part).find(([, made]) => made === name) ?? assert.fail(name);
  const ours = "vision_model.encoder.layers.{block}.self_attn";
  const theirs = "visual_encoder.transformer.resblocks.{block}.attn.in_proj";
  for (const [i, half] of ["q", "k", "v"].entries()) {
    const third = ["first", "second", "last"][i];
    for (const kind of ["weight", "bias"]) {
      assert.deepEqual(row("vit-l", `${ours}.${half}_proj.${kind}`), [
        `${theirs}_${kind}`,
        `${ours}.${half}_proj.${kind}`,
        `rows: ${third} third`,
      ]);
    }
  }
  const eva = "visual_encoder.blocks.{block}.attn";
  assert.deepEqual(row("vit-g", `${ours}.qkv.bias`)[0], [`${eva}.q_bias`, `${eva}.v_bias`]);
  assert.equal(row("vit-l", "vision_model.post_layernorm.weight")[0], "ln_vision.weight");
  assert.equal(row("vit-g", "vision_model.post_layernorm.weight")[0], "ln_vision.weight");
  assert.equal(row("blip vit", "vision_model.post_layernorm.weight")[0], "visual_encoder.norm.weight");
});
