import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { blip2Config, blip2RetrievalConfig, blip2T5Config } from "../../src/models/blip-2-config.ts";
import { type BlipConfig, blipConfig } from "../../src/models/blip-config.ts";
import { clipConfig } from "../../src/models/clip-config.ts";
import { instructBlipLlamaConfig, instructBlipT5Config } from "../../src/models/instructblip-config.ts";
import { lavisBlip2, withSettings } from "../../src/models/run-settings.ts";
import { expectTensors, openCheckpoint, readSettings } from "../../src/weights/checkpoint.ts";
import { blipCaptionNames, blipRetrievalNames, blipVqaNames } from "../../src/weights/names/blip.ts";
import { blip2OptNames, visionNames } from "../../src/weights/names/blip-2-opt.ts";
import { blip2RetrievalNames } from "../../src/weights/names/blip-2-retrieval.ts";
import { blip2T5Names } from "../../src/weights/names/blip-2-t5.ts";
import { clipNames } from "../../src/weights/names/clip.ts";
import { instructBlipLlamaNames, instructBlipT5Names } from "../../src/weights/names/instructblip.ts";
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

/** What config.json of the published checkpoints with flan-t5 says beyond the class defaults. */
function publishedT5(text: Record<string, unknown>): Record<string, unknown> {
  return {
    model_type: "blip-2",
    image_token_index: 32100,
    text_config: {
      model_type: "t5",
      num_layers: 24,
      feed_forward_proj: "gated-gelu",
      dense_act_fn: "gelu",
      tie_word_embeddings: false,
      decoder_start_token_id: 0,
      bos_token_id: 1,
      ...text,
    },
  };
}

for (const { name, text, total } of [
  { name: "blip2-flan-t5-xl", text: { d_model: 2048, d_ff: 5120, num_heads: 32 }, total: 3_942_446_592 },
  { name: "blip2-flan-t5-xxl", text: { d_model: 4096, d_ff: 10240, num_heads: 64 }, total: 12_229_596_672 },
]) {
  test(`${name}: names, shapes, 1291 tensors, ${total} parameters`, () => {
    const { required, tied } = blip2T5Names(blip2T5Config(name, publishedT5(text)));
    assert.equal(required.length + tied.length, 1291);
    assert.equal(new Set([...required, ...tied].map((each) => each.name)).size, 1291, "no name twice");
    assert.equal(parameters(required), total);
    const shapes = new Map(required.map((each) => [each.name, each.shape]));
    const { d_model: width, d_ff: ffn, num_heads: heads } = text;
    const inner = heads * 64;
    const expected: [string, number[]][] = [
      ["language_projection.weight", [width, 768]],
      ["language_model.shared.weight", [32128, width]],
      ["language_model.lm_head.weight", [32128, width]],
      ["language_model.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", [32, heads]],
      ["language_model.decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", [32, heads]],
      ["language_model.encoder.block.23.layer.0.SelfAttention.q.weight", [inner, width]],
      ["language_model.encoder.block.23.layer.1.DenseReluDense.wi_1.weight", [ffn, width]],
      ["language_model.encoder.block.23.layer.1.layer_norm.weight", [width]],
      ["language_model.encoder.final_layer_norm.weight", [width]],
      ["language_model.decoder.block.23.layer.1.EncDecAttention.o.weight", [width, inner]],
      ["language_model.decoder.block.23.layer.2.DenseReluDense.wo.weight", [width, ffn]],
      ["language_model.decoder.block.23.layer.2.layer_norm.weight", [width]],
    ];
    for (const [key, shape] of expected) assert.deepEqual(shapes.get(key), shape, key);
    assert.ok(!shapes.has("language_model.encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"));
  });
}

test("T5 with a tied head: no head is needed, and one that is there is the embeddings' copy", () => {
  const sizes = blip2T5Config("m", publishedT5({ tie_word_embeddings: true }));
  const { required, tied } = blip2T5Names(sizes);
  assert.ok(!required.some(({ name }) => name.includes("lm_head")));
  assert.deepEqual(tied.at(-1), { name: "language_model.lm_head.weight", shape: [32128, 512] });
});

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

for (const { name, json, tensors, count, widths } of [
  { name: "clip-vit-base-patch32", json: {}, tensors: 398, count: 151_277_313, widths: [768, 32, 50, 512, 512] },
  {
    name: "clip-vit-large-patch14",
    json: {
      projection_dim: 768,
      text_config: { hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12 },
      vision_config: {
        ...{ hidden_size: 1024, intermediate_size: 4096, num_attention_heads: 16 },
        ...{ num_hidden_layers: 24, patch_size: 14 },
      },
    },
    tensors: 590,
    count: 427_616_513,
    widths: [1024, 14, 257, 768, 768],
  },
] as const) {
  test(`${name}: names, shapes, ${tensors} tensors, ${count} parameters`, () => {
    const { required, tied } = clipNames(clipConfig(name, { model_type: "clip", ...json }));
    assert.equal(required.length, tensors);
    assert.equal(new Set(required.map((each) => each.name)).size, tensors, "no name twice");
    assert.deepEqual(tied, []);
    assert.equal(parameters(required), count);
    const shapes = new Map(required.map((each) => [each.name, each.shape]));
    const [width, patch, tokens, textWidth, projection] = widths;
    const expected: [string, number[]][] = [
      ["logit_scale", []],
      ["vision_model.embeddings.class_embedding", [width]],
      ["vision_model.embeddings.patch_embedding.weight", [width, 3, patch, patch]],
      ["vision_model.embeddings.position_embedding.weight", [tokens, width]],
      ["vision_model.pre_layrnorm.weight", [width]],
      ["vision_model.encoder.layers.11.self_attn.q_proj.bias", [width]],
      ["vision_model.post_layernorm.bias", [width]],
      ["visual_projection.weight", [projection, width]],
      ["text_model.embeddings.token_embedding.weight", [49408, textWidth]],
      ["text_model.embeddings.position_embedding.weight", [77, textWidth]],
      ["text_model.encoder.layers.11.mlp.fc1.weight", [4 * textWidth, textWidth]],
      ["text_model.final_layer_norm.weight", [textWidth]],
      ["text_projection.weight", [projection, textWidth]],
    ];
    for (const [key, shape] of expected) assert.deepEqual(shapes.get(key), shape, key);
    for (const key of [
      "vision_model.embeddings.patch_embedding.bias",
      "visual_projection.bias",
      "text_projection.bias",
    ]) {
      assert.ok(!shapes.has(key), key);
    }
  });
}

for (const name of ["blip2-opt-tiny", "blip2-opt-sharded", "blip2-opt-bf16"]) {
  test(`${name} holds exactly these tensors`, async () => {
    const checkpoint = await openCheckpoint(path.join(fixtures, "models", name));
    const names = blip2OptNames(blip2Config(name, (await readSettings(checkpoint, "config.json")) ?? {}));
    expectTensors(checkpoint, names);
    assert.deepEqual([...checkpoint.tensors.keys()].sort(), names.required.map((each) => each.name).sort());
  });
}

for (const name of ["blip2-t5-tiny", "blip2-t5-half"]) {
  test(`${name} holds exactly these tensors`, async () => {
    const checkpoint = await openCheckpoint(path.join(fixtures, "models", name));
    const names = blip2T5Names(blip2T5Config(name, (await readSettings(checkpoint, "config.json")) ?? {}));
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

for (const name of ["clip-tiny", "clip-half"]) {
  test(`${name} holds exactly these tensors`, async () => {
    const checkpoint = await openCheckpoint(path.join(fixtures, "clip", name));
    const names = clipNames(clipConfig(name, (await readSettings(checkpoint, "config.json")) ?? {}));
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

const instructed = { model_type: "instructblip", image_token_index: 32001, qformer_config: { vocab_size: 30523 } };
const instructedShapes: [string, number[]][] = [
  ["vision_model.encoder.layers.38.self_attn.qkv.weight", [4224, 1408]],
  ["query_tokens", [1, 32, 768]],
  ["qformer.embeddings.word_embeddings.weight", [30523, 768]],
  ["qformer.embeddings.position_embeddings.weight", [512, 768]],
  ["qformer.embeddings.layernorm.weight", [768]],
  ["qformer.encoder.layer.10.crossattention.attention.value.weight", [768, 1408]],
  ["qformer.encoder.layer.11.intermediate.dense.weight", [3072, 768]],
  ["qformer.encoder.layer.11.intermediate_query.dense.bias", [3072]],
  ["qformer.encoder.layer.11.output.LayerNorm.bias", [768]],
];

// Counts and totals as transformers 4.57.6 gives them for models built from these configurations.
for (const { name, text, count, total } of [
  { name: "instructblip-vicuna-7b", text: { vocab_size: 32001 }, count: 1096, total: 7_913_210_624 },
  {
    name: "instructblip-vicuna-7b, as on the hub today",
    text: { vocab_size: 32064 },
    count: 1096,
    total: 7_913_726_720,
  },
  {
    name: "instructblip-vicuna-13b",
    text: {
      ...{ vocab_size: 32001, hidden_size: 5120, intermediate_size: 13824 },
      ...{ num_hidden_layers: 40, num_attention_heads: 40 },
    },
    count: 1168,
    total: 14_191_448_832,
  },
]) {
  test(`${name}: names, shapes, ${count} tensors, ${total} parameters`, () => {
    const config = instructBlipLlamaConfig(name, { ...instructed, text_config: { model_type: "llama", ...text } });
    const { required, tied } = instructBlipLlamaNames(config);
    assert.equal(required.length, count);
    assert.equal(new Set(required.map((each) => each.name)).size, count, "no name twice");
    assert.deepEqual(tied, []);
    assert.equal(parameters(required), total);
    const shapes = new Map(required.map((each) => [each.name, each.shape]));
    const { width, ffnWidth, vocabulary, layers } = config.text;
    const layer = `language_model.model.layers.${layers - 1}`;
    for (const [key, shape] of [
      ...instructedShapes,
      ["language_projection.weight", [width, 768]],
      ["language_model.model.embed_tokens.weight", [vocabulary, width]],
      [`${layer}.input_layernorm.weight`, [width]],
      [`${layer}.self_attn.o_proj.weight`, [width, width]],
      [`${layer}.post_attention_layernorm.weight`, [width]],
      [`${layer}.mlp.gate_proj.weight`, [ffnWidth, width]],
      [`${layer}.mlp.down_proj.weight`, [width, ffnWidth]],
      ["language_model.model.norm.weight", [width]],
      ["language_model.lm_head.weight", [vocabulary, width]],
    ] as [string, number[]][]) {
      assert.deepEqual(shapes.get(key), shape, key);
    }
    for (const key of [
      `${layer}.self_attn.q_proj.bias`,
      "qformer.layernorm.weight",
      "embeddings.word_embeddings.weight",
    ]) {
      assert.ok(!shapes.has(key), key);
    }
    assert.equal(config.text.headWidth, 128);
  });
}

for (const { name, width, ffn, heads, total } of [
  { name: "instructblip-flan-t5-xl", width: 2048, ffn: 5120, heads: 32, total: 4_022_969_088 },
  { name: "instructblip-flan-t5-xxl", width: 4096, ffn: 10240, heads: 64, total: 12_310_119_168 },
]) {
  test(`${name}: names, shapes, 1365 tensors, ${total} parameters`, () => {
    const text_config = {
      ...{ model_type: "t5", d_model: width, d_ff: ffn, num_heads: heads, num_layers: 24, num_decoder_layers: 24 },
      ...{
        feed_forward_proj: "gated-gelu",
        dense_act_fn: "gelu",
        tie_word_embeddings: false,
        decoder_start_token_id: 0,
      },
    };
    const { required, tied } = instructBlipT5Names(instructBlipT5Config(name, { ...instructed, text_config }));
    // transformers counts the two stacks' views of the table of words.
    assert.equal(required.length + tied.length, 1365);
    assert.equal(parameters(required), total);
    const shapes = new Map(required.map((each) => [each.name, each.shape]));
    for (const [key, shape] of [...instructedShapes, ["language_model.lm_head.weight", [32128, width]]] as const) {
      assert.deepEqual(shapes.get(key), shape, key);
    }
  });
}

test("Llama with a tied head: no head is needed, and one that is there is the embeddings' copy", () => {
  const text_config = { model_type: "llama", tie_word_embeddings: true };
  const { required, tied } = instructBlipLlamaNames(instructBlipLlamaConfig("m", { ...instructed, text_config }));
  assert.ok(!required.some(({ name }) => name === "language_model.lm_head.weight"));
  assert.deepEqual(tied, [{ name: "language_model.lm_head.weight", shape: [32000, 4096] }]);
});

for (const name of ["instructblip-vicuna-tiny", "instructblip-t5-half"]) {
  test(`${name} holds exactly these tensors`, async () => {
    const checkpoint = await openCheckpoint(path.join(fixtures, "instructblip", name));
    const json = (await readSettings(checkpoint, "config.json")) ?? {};
    const names = name.includes("t5")
      ? instructBlipT5Names(instructBlipT5Config(name, json))
      : instructBlipLlamaNames(instructBlipLlamaConfig(name, json));
    expectTensors(checkpoint, names);
    assert.deepEqual([...checkpoint.tensors.keys()].sort(), names.required.map((each) => each.name).sort());
  });
}

// The checkpoints that were trained further on COCO: 364 pixels, and so 677 positions; all else is as above.
for (const [name, more, kind] of [
  ["blip2-opt-2.7b-coco", 3_744_761_856, "opt"],
  ["blip2-opt-6.7b-coco", 7_752_869_376, "opt"],
  ["blip2-flan-t5-xl-coco", 3_942_446_592, "t5"],
  ["blip2-itm-vit-g-coco", 1_172_032_258, "itm"],
] as const) {
  const total = more + (677 - 257) * 1408;
  test(`${name}: 677 positions of 364 pixels, ${total} parameters`, () => {
    const vision_config = { image_size: 364 };
    const qformer_config = { use_qformer_text_input: true, vocab_size: 30523 };
    const text = { d_model: 2048, d_ff: 5120, num_heads: 32 };
    const { required } =
      kind === "opt"
        ? blip2OptNames(blip2Config(name, { ...published(name.includes("6.7b") ? 4096 : 2560), vision_config }))
        : kind === "t5"
          ? blip2T5Names(blip2T5Config(name, { ...publishedT5(text), vision_config }))
          : blip2RetrievalNames(blip2RetrievalConfig(name, { vision_config, qformer_config }));
    assert.equal(parameters(required), total);
    const positions = required.find((each) => each.name === "vision_model.embeddings.position_embedding");
    assert.deepEqual(positions?.shape, [1, 677, 1408]);
  });
}

test("364 pixels with a checkpoint of 224: the file keeps its 257 positions, and 677 are made of them", () => {
  const { vision } = withSettings("m", blip2Config("m", published(2560)), lavisBlip2, { imageSize: 364 });
  const { positions } = visionNames({ vision });
  assert.deepEqual(positions, {
    kind: "grid",
    stored: { name: "vision_model.embeddings.position_embedding", shape: [1, 257, 1408] },
    from: 16,
    to: 26,
    width: 1408,
  });
});
