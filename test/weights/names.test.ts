import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { blip2Config, blip2RetrievalConfig } from "../../src/models/blip-2-config.ts";
import { type BlipConfig, blipConfig } from "../../src/models/blip-config.ts";
import { expectTensors, openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { blipCaptionNames, blipRetrievalNames, blipVqaNames } from "../../src/weights/names/blip.ts";
import { blip2OptNames } from "../../src/weights/names/blip-2-opt.ts";
import { blip2RetrievalNames } from "../../src/weights/names/blip-2-retrieval.ts";
import type { NamedTensor, NameTable } from "../../src/weights/names/tensor-names.ts";
import { fixtures } from "../fixture-files.ts";

function parameters(tensors: readonly NamedTensor[]): number {
  return tensors.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
}

/** What config.json of the published checkpoints says beyond the class defaults. */
function published(width: number): Record<string, unknown> {
  return {
    model_type: "blip-2",
    image_token_index: 50265,
    text_config: {
      model_type: "opt",
      hidden_size: width,
      ffn_dim: 4 * width,
      num_hidden_layers: 32,
      num_attention_heads: 32,
      word_embed_proj_dim: width,
      vocab_size: 50304,
      eos_token_id: 50118,
    },
  };
}

// Counts and totals as transformers 4.57.6 gives them for models built from these configurations.
for (const { name, width, total } of [
  { name: "blip2-opt-2.7b", width: 2560, total: 3_744_761_856 },
  { name: "blip2-opt-6.7b", width: 4096, total: 7_752_869_376 },
]) {
  test(`${name}: names, shapes, 1248 tensors, ${total} parameters`, () => {
    const { required, tied } = blip2OptNames(blip2Config(name, published(width)));
    assert.equal(required.length + tied.length, 1248);
    assert.equal(new Set([...required, ...tied].map((each) => each.name)).size, 1248, "no name twice");
    assert.equal(parameters(required), total);
    const shapes = new Map(required.map((each) => [each.name, each.shape]));
    const expected: [string, number[]][] = [
      ["vision_model.embeddings.class_embedding", [1, 1, 1408]],
      ["vision_model.embeddings.position_embedding", [1, 257, 1408]],
      ["vision_model.embeddings.patch_embedding.weight", [1408, 3, 14, 14]],
      ["vision_model.encoder.layers.38.self_attn.qkv.weight", [4224, 1408]],
      ["vision_model.encoder.layers.38.mlp.fc1.weight", [6144, 1408]],
      ["vision_model.post_layernorm.bias", [1408]],
      ["query_tokens", [1, 32, 768]],
      ["qformer.encoder.layer.10.crossattention.attention.key.weight", [768, 1408]],
      ["qformer.encoder.layer.11.output_query.dense.weight", [768, 3072]],
      ["language_projection.weight", [width, 768]],
      ["language_model.model.decoder.embed_tokens.weight", [50304, width]],
      ["language_model.model.decoder.embed_positions.weight", [2050, width]],
      ["language_model.model.decoder.layers.31.fc2.weight", [width, 4 * width]],
    ];
    for (const [key, shape] of expected) assert.deepEqual(shapes.get(key), shape, key);
    assert.ok(!shapes.has("qformer.encoder.layer.11.crossattention.attention.key.weight"), "odd layers do not");
    assert.ok(!shapes.has("vision_model.encoder.layers.39.mlp.fc1.weight"));
  });
}

test("blip2-itm-vit-g: names, shapes, 809 tensors, 1172032258 parameters", () => {
  const config = blip2RetrievalConfig("model", {
    model_type: "blip-2",
    architectures: ["Blip2ForImageTextRetrieval"],
    image_text_hidden_size: 256,
    qformer_config: { use_qformer_text_input: true, vocab_size: 30523 },
  });
  const { required, tied } = blip2RetrievalNames(config);
  assert.equal(required.length, 809);
  assert.equal(new Set(required.map((each) => each.name)).size, 809, "no name twice");
  assert.deepEqual(tied, []);
  assert.equal(parameters(required), 1_172_032_258);
  const shapes = new Map(required.map((each) => [each.name, each.shape]));
  const expected: [string, number[]][] = [
    ["query_tokens", [1, 32, 768]],
    ["embeddings.word_embeddings.weight", [30523, 768]],
    ["embeddings.position_embeddings.weight", [512, 768]],
    ["qformer.encoder.layer.10.crossattention.attention.value.weight", [768, 1408]],
    ["qformer.encoder.layer.11.intermediate.dense.weight", [3072, 768]],
    ["qformer.encoder.layer.11.output.dense.weight", [768, 3072]],
    ["qformer.encoder.layer.11.output.LayerNorm.bias", [768]],
    ["qformer.encoder.layer.11.intermediate_query.dense.bias", [3072]],
    ["vision_projection.weight", [256, 768]],
    ["text_projection.bias", [256]],
    ["itm_head.weight", [2, 768]],
  ];
  for (const [key, shape] of expected) assert.deepEqual(shapes.get(key), shape, key);
});

for (const name of ["blip2-opt-tiny", "blip2-opt-sharded", "blip2-opt-bf16", "blip2-opt-demo"]) {
  test(`${name} holds exactly these tensors`, async () => {
    const checkpoint = await openCheckpoint(path.join(fixtures, "models", name));
    const names = blip2OptNames(blip2Config(name, (await readSettings(checkpoint, "config.json")) ?? {}));
    expectTensors(checkpoint, names);
    assert.deepEqual([...checkpoint.tensors.keys()].sort(), names.required.map((each) => each.name).sort());
  });
}

for (const name of ["blip2-itm-tiny", "blip2-itm-half"]) {
  test(`${name} holds exactly these tensors`, async () => {
    const checkpoint = await openCheckpoint(path.join(fixtures, "retrieval", name));
    const names = blip2RetrievalNames(
      blip2RetrievalConfig(name, (await readSettings(checkpoint, "config.json")) ?? {}),
    );
    expectTensors(checkpoint, names);
    assert.deepEqual([...checkpoint.tensors.keys()].sort(), names.required.map((each) => each.name).sort());
  });
}

const blipBase: [string, number[]][] = [
  ["vision_model.embeddings.class_embedding", [1, 1, 768]],
  ["vision_model.embeddings.position_embedding", [1, 577, 768]],
  ["vision_model.embeddings.patch_embedding.weight", [768, 3, 16, 16]],
  ["vision_model.encoder.layers.11.self_attn.qkv.bias", [2304]],
  ["vision_model.post_layernorm.weight", [768]],
];
const decoderBase: [string, number[]][] = [
  ["text_decoder.bert.embeddings.word_embeddings.weight", [30524, 768]],
  ["text_decoder.bert.embeddings.position_embeddings.weight", [512, 768]],
  ["text_decoder.bert.encoder.layer.11.attention.self.query.weight", [768, 768]],
  ["text_decoder.bert.encoder.layer.11.crossattention.self.query.weight", [768, 768]],
  ["text_decoder.bert.encoder.layer.11.crossattention.output.LayerNorm.bias", [768]],
  ["text_decoder.bert.encoder.layer.11.intermediate.dense.weight", [3072, 768]],
  ["text_decoder.cls.predictions.transform.dense.weight", [768, 768]],
  ["text_decoder.cls.predictions.bias", [30524]],
];
const blipLarge = {
  vision_config: { hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 24, num_attention_heads: 16 },
};

// Counts and totals as transformers 4.57.6 gives them for models built from these configurations.
for (const { name, json, namesOf, count, total, expected } of [
  {
    name: "blip-image-captioning-base",
    json: {},
    namesOf: blipCaptionNames,
    count: 473,
    total: 223_971_644,
    expected: [...blipBase, ...decoderBase],
  },
  {
    name: "blip-image-captioning-large",
    json: blipLarge,
    namesOf: blipCaptionNames,
    count: 617,
    total: 446_290_492,
    expected: [
      ["vision_model.encoder.layers.23.self_attn.qkv.weight", [3072, 1024]],
      ["text_decoder.bert.encoder.layer.0.crossattention.self.key.weight", [768, 1024]],
      ["text_decoder.bert.encoder.layer.0.attention.self.key.weight", [768, 768]],
    ],
  },
  {
    name: "blip-vqa-base",
    json: {},
    namesOf: blipVqaNames,
    count: 789,
    total: 361_230_140,
    expected: [...blipBase, ...decoderBase, ["text_encoder.embeddings.word_embeddings.weight", [30524, 768]]],
  },
  {
    name: "blip-itm-base",
    json: {},
    namesOf: blipRetrievalNames,
    count: 472,
    total: 223_744_258,
    expected: [
      ...blipBase,
      ["text_encoder.encoder.layer.11.crossattention.self.value.weight", [768, 768]],
      ["vision_proj.weight", [256, 768]],
      ["text_proj.bias", [256]],
      ["itm_head.weight", [2, 768]],
    ],
  },
] as {
  name: string;
  json: Record<string, unknown>;
  namesOf: (config: BlipConfig) => NameTable;
  count: number;
  total: number;
  expected: [string, number[]][];
}[]) {
  test(`${name}: names, shapes, ${count} tensors, ${total} parameters`, () => {
    const { required, tied } = namesOf(blipConfig(name, json));
    assert.equal(required.length + tied.length, count);
    assert.equal(new Set([...required, ...tied].map((each) => each.name)).size, count, "no name twice");
    assert.equal(parameters(required), total);
    const shapes = new Map(required.map((each) => [each.name, each.shape]));
    for (const [key, shape] of expected) assert.deepEqual(shapes.get(key), shape, key);
    assert.ok(!shapes.has("text_decoder.bert.encoder.layer.12.intermediate.dense.weight"));
  });
}

test("the head's copies may be there where it is tied; where it is not, its matrix must be", () => {
  const head = "text_decoder.cls.predictions.decoder";
  for (const tied of [true, false]) {
    const names = blipCaptionNames(blipConfig("m", { text_config: { tie_word_embeddings: tied } }));
    const weight = { name: `${head}.weight`, shape: [30524, 768] };
    const bias = { name: `${head}.bias`, shape: [30524] };
    assert.deepEqual(names.tied, tied ? [weight, bias] : [bias]);
    assert.equal(
      names.required.some(({ name }) => name === weight.name),
      !tied,
    );
    assert.ok(names.required.some(({ name }) => name === "text_decoder.bert.embeddings.word_embeddings.weight"));
  }
});

for (const [name, namesOf] of [
  ["blip-caption-tiny", blipCaptionNames],
  ["blip-caption-half", blipCaptionNames],
  ["blip-vqa-tiny", blipVqaNames],
  ["blip-vqa-half", blipVqaNames],
  ["blip-itm-tiny", blipRetrievalNames],
  ["blip-itm-half", blipRetrievalNames],
] as const) {
  test(`${name} holds exactly these tensors`, async () => {
    const checkpoint = await openCheckpoint(path.join(fixtures, "blip", name));
    const names = namesOf(blipConfig(name, (await readSettings(checkpoint, "config.json")) ?? {}));
    expectTensors(checkpoint, names);
    const held = [...names.required, ...(name === "blip-caption-tiny" ? names.tied : [])].map((each) => each.name);
    assert.deepEqual([...checkpoint.tensors.keys()].sort(), held.sort());
  });
}
